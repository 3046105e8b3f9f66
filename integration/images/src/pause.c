// pause: does nothing until SIGTERM or SIGINT, and reaps what is left to it. No libc: the image is one small file.
// The validation suite asks for an image of this name; pods of crisp need none.
#if defined(__x86_64__)
enum { SIGPROCMASK = 14, WAIT4 = 61, EXIT_GROUP = 231, SIGTIMEDWAIT = 128 };
static long call4(long number, long a, long b, long c, long d)
{
    long result;
    register long fourth __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth) : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum { SIGPROCMASK = 135, WAIT4 = 260, EXIT_GROUP = 94, SIGTIMEDWAIT = 137 };
static long call4(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#endif
enum { INT = 2, TERM = 15, CHILD = 17, NO_HANG = 1, BLOCK = 0 };

void _start(void)
{
    unsigned long waited = 1UL << (INT - 1) | 1UL << (TERM - 1) | 1UL << (CHILD - 1);
    call4(SIGPROCMASK, BLOCK, (long)&waited, 0, sizeof waited);
    for (;;) {
        long signal = call4(SIGTIMEDWAIT, (long)&waited, 0, 0, sizeof waited);
        if (signal == INT || signal == TERM)
            call4(EXIT_GROUP, 0, 0, 0, 0);
        while (signal == CHILD && call4(WAIT4, -1, 0, NO_HANG, 0) > 0)
            ;
    }
}
