/* A wall clock that is AHEAD seconds ahead, preloaded into every program of a host. */
struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };
extern void *dlsym(void *, const char *);

int clock_gettime(int clock, struct timespec *now)
{
    static int (*real)(int, struct timespec *);
    if (!real)
        real = dlsym((void *)-1, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == 0 || clock == 5))    /* CLOCK_REALTIME and its coarse one */
        now->seconds += AHEAD;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    clock_gettime(0, &exact);
    now->seconds = exact.seconds;
    now->microseconds = exact.nanoseconds / 1000;
    return 0;
}

long time(long *place)
{
    struct timespec exact;
    clock_gettime(0, &exact);
    if (place)
        *place = exact.seconds;
    return exact.seconds;
}
