/** Polls until the condition gives something; an error ends it at once, unlike that of `eventually`. The deadline only ends a hang. */
export async function until<T>(probe: () => Promise<T | undefined> | T | undefined, deadlineMs = 30_000): Promise<T> {
  const deadline = Date.now() + deadlineMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`not within ${deadlineMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
