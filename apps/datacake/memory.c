/* memory.c: see memory.h.
 *
 * Most of the code that a start runs through (the linker, the set-up of libraries, the opening of files) never runs
 * again, but stays mapped: 5 MiB of each process, for which a machine with many is charged in every listing. */
#include "memory.h"

#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A debugger's breakpoints are private changes to code, which would be given back, too. */
static bool is_traced(void)
{
    char line[128];
    int tracer = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL && sscanf(line, "TracerPid: %d", &tracer) != 1)
        ;
    if (file != NULL)
        fclose(file);
    return tracer != 0;
}

/* Only what cannot have been written to: those pages are the file's. */
static int release_segments(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W) != 0)
            continue;
        uintptr_t begin = (info->dlpi_addr + segment->p_vaddr + page - 1) / page * page;
        uintptr_t end = (info->dlpi_addr + segment->p_vaddr + segment->p_filesz) / page * page;
        if (begin < end)
            (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
    return 0;
}

void memory_release_start(void)
{
    malloc_trim(0);
    if (!is_traced())
        (void)dl_iterate_phdr(release_segments, NULL);
}
