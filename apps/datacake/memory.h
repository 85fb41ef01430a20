/* memory.h: what a process holds in memory. */
#ifndef DATACAKE_APP_MEMORY_H
#define DATACAKE_APP_MEMORY_H

/* Gives back what only the start has needed: free heap, and pages of code that are read again from the page cache
 * if they are ever needed. To be called once, when the node is ready. */
void memory_release_start(void);

#endif
