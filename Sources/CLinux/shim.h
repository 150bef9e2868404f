#pragma once
// What Swift's Glibc module leaves out of the system's headers.
#include <stdint.h>
#include <sys/epoll.h>
#include <time.h>

// Adds, or changes, what is waited for on a descriptor; `key` comes back with its events.
static inline int cl_epoll_watch(int epoll, int operation, int descriptor, uint32_t events, uint64_t key) {
    struct epoll_event event = {.events = events, .data = {.u64 = key}};
    return epoll_ctl(epoll, operation, descriptor, &event);
}

// The keys of what is ready, at most 256; waits `nanoseconds` at most.
static inline int cl_epoll_wait(int epoll, uint64_t keys[256], int64_t nanoseconds) {
    struct epoll_event events[256];
    struct timespec time = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    int count = epoll_pwait2(epoll, events, 256, &time, 0);
    for (int index = 0; index < count; index++) keys[index] = events[index].data.u64;
    return count;
}
