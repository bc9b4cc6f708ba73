// The eight behaviours by functions that a shim serves: an async function and an async generator.

async function form(task) {
  const answers = await Promise.all([
    task.ask("Which colour?", { options: [{ value: "red", label: "Red" }, { value: "blue", label: "Blue" }] }),
    task.ask("How often?", { schema: { type: "integer", minimum: 1, maximum: 9 } }),
    task.ask("Sure?", { options: ["yes", "no"], default: "no", expiresMs: 300 }),
  ]);
  return answers.join(" ");
}

const late = (task) => task.ask("Now?", { expiresMs: 200 }).catch((e) => `late: ${e.reason}`);

export async function agent(text, task) {
  if (text.startsWith("echo ")) return text.slice(5);
  if (text === "stream") {
    for (const word of ["one ", "two ", "three ", "four"]) task.emit(word);
    return null;
  }
  if (text === "tool") {
    const call = task.tool("add", { a: 1, b: 2 });
    call.result(1 + 2);
    return { text: "sum 3" };
  }
  if (text.startsWith("remember ")) {
    await task.kv.put("word", text.slice(9));
    return "noted";
  }
  if (text === "recall") return "you said " + await task.kv.get("word");
  if (text === "ask") return "painted " + await task.ask("Which colour?");
  if (text === "form") return form(task);
  if (text === "late") return late(task);
  if (text === "hang") {
    task.emit("working");
    await new Promise((_, reject) => task.signal.addEventListener("abort", () => reject(task.signal.reason)));
  }
  if (text === "fail") throw new Error("broken as asked");
  if (text === "artifact") {
    task.artifact("report", { text: "forty-two", filename: "report.txt" });
    return "made";
  }
  return `what is ${text}?`;
}

export async function* generatorAgent(text, task) {
  if (text.startsWith("echo ")) yield text.slice(5);
  else if (text === "stream") yield* ["one ", "two ", "three ", "four"];
  else if (text === "tool") {
    yield { type: "tool_call", callId: "c1", name: "add", args: { a: 1, b: 2 } };
    yield { type: "tool_result", callId: "c1", name: "add", output: 1 + 2 };
    yield "sum 3";
  } else if (text.startsWith("remember ")) {
    await task.kv.put("word", text.slice(9));
    yield "noted";
  } else if (text === "recall") yield "you said " + await task.kv.get("word");
  else if (text === "ask") yield "painted " + await task.ask("Which colour?");
  else if (text === "form") yield await form(task);
  else if (text === "late") yield await late(task);
  else if (text === "hang") {
    yield "working";
    await task.sleep(3_600_000);
  } else if (text === "fail") throw new Error("broken as asked");
  else if (text === "artifact") {
    task.artifact("report", { text: "forty-two", filename: "report.txt" });
    yield "made";
  } else yield `what is ${text}?`;
}

export default agent;
