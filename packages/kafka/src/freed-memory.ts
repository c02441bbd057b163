/** glibc counts no block above 32 MB. */
const BLOCK_BYTES = 16 << 20;
let kept = false;

/**
 * Has this process keep the memory that answers of brokers lay in, for the next ones. glibc's malloc gives freed memory back to the kernel when more of it
 * lies together than twice the largest block that was freed so far (mallopt(3), M_MMAP_THRESHOLD): after answers of 2 MB that is 4 MB, and answers
 * are read into fresh pages, with a page fault for each. One larger block that is made, never touched, and freed raises it. Other mallocs
 * are left as they are. Decision 11 has the figures.
 */
export function keepFreedMemory(): void {
  if (kept) return;
  kept = true;
  new ArrayBuffer(BLOCK_BYTES);
}
