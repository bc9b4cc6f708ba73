// Counts words.
export async function counter(text) {
  return `${text.trim().split(/\s+/).length} words`;
}
