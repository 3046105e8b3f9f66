// euid: the validation suite's setuid program; tells whether no_new_privs held it back.
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    printf("Effective uid: %d\n", (int)geteuid());
    return 0;
}
