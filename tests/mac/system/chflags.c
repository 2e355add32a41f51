// SPDX-License-Identifier: MIT
// chflags(1): chflags [-h] FLAG[,FLAG] FILE..., the flags being uchg, uappnd, schg, their "no"s, or 0.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern int chflags(const char *, unsigned), lchflags(const char *, unsigned);
extern unsigned standin_flags(int, const char *, int);

static unsigned number(const char *name) {
    return !strcmp(name, "uchg") ? 2 : !strcmp(name, "uappnd") ? 4 : !strcmp(name, "schg") ? 0x20000 : 0;
}

int main(int count, char **words) {
    int own = count > 1 && !strcmp(words[1], "-h"), status = 0;
    if (count - own < 3) { fputs("usage: chflags [-h] flags file ...\n", stderr); return 1; }
    for (int i = 2 + own; i < count; i++) {
        unsigned flags = standin_flags(-100, words[i], !own);
        char *wanted = strdup(words[1 + own]);
        for (char *flag = strtok(wanted, ","); flag; flag = strtok(NULL, ",")) {
            if (!strcmp(flag, "0")) flags = 0;
            else if (!strncmp(flag, "no", 2)) flags &= ~number(flag + 2);
            else flags |= number(flag);
        }
        if ((own ? lchflags : chflags)(words[i], flags)) { perror(words[i]); status = 1; }
        free(wanted);
    }
    return status;
}
