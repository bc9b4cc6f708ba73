import { createHash } from "node:crypto";

/** The campaign's agent as a function: the digest of what it was asked. */
export async function agent(text) {
  await new Promise((done) => setTimeout(done, Number(text.split(" ")[2])));
  return createHash("sha256").update(text).digest("hex");
}
