/* The wall clock of every process that preloads this, as far ahead of the machine's as a file says: eight bytes,
 * nanoseconds, mapped, so that all processes jump in the same moment. Clocks that count since the start of the machine are
 * left alone, and so are waits until a time of day: Kafka's client makes such, TrackLayer, PostgreSQL and Redis do not.
 *
 * Debian's libfaketime does the same for most programs, but asks the dynamic linker at its first call, from within which
 * jemalloc calls it again: Debian's Redis hangs at its start. This asks the kernel and needs no memory. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static volatile const int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TRACKLAYER_TESTS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) ahead = page;
    close(file);
}

static int read_clock(clockid_t clock, struct timespec *time) {
    int failed = (int)syscall(SYS_clock_gettime, clock, time);
    if (failed || !ahead || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
    int64_t nanoseconds = time->tv_nsec + *ahead % SECOND;
    time->tv_sec += *ahead / SECOND + nanoseconds / SECOND;
    time->tv_nsec = nanoseconds % SECOND;
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *time) { return read_clock(clock, time); }

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    if (read_clock(CLOCK_REALTIME, &now)) return -1;
    *time = (struct timeval){ .tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000 };
    return 0;
}

time_t time(time_t *into) {
    struct timespec now;
    if (read_clock(CLOCK_REALTIME_COARSE, &now)) return (time_t)-1;
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *time, int base) {
    return base == TIME_UTC && !read_clock(CLOCK_REALTIME, time) ? base : 0;
}
