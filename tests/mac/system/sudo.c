// SPDX-License-Identifier: MIT
// sudo for the members of admin, who need no password here: as on macOS it keeps PATH and HOME, and
// -u NAME runs something as another user.
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **words) {
    struct passwd *caller = getpwuid(getuid()), *to;
    int at = 1;
    const char *name = "root";
    while (at < count && words[at][0] == '-') {
        if (!strcmp(words[at], "-u") && at + 1 < count) name = words[++at];
        else if (strcmp(words[at], "-n") && strcmp(words[at], "-v") && strcmp(words[at], "-H")) break;
        at++;
    }
    if (!caller) return 1;
    gid_t groups[64];
    int many = getgroups(64, groups), admin = getuid() == 0;
    for (int i = 0; i < many; i++) admin |= groups[i] == 80;
    if (!admin) { fprintf(stderr, "%s is not in the sudoers file.\n", caller->pw_name); return 1; }
    if (at == count) return 0;
    char uid[16], gid[16], *path = getenv("PATH"), *home = getenv("HOME"), *terminal = getenv("TERM");
    char *own = strdup(caller->pw_name);
    path = strdup(path ? path : "/usr/bin:/bin:/usr/sbin:/sbin");
    home = strdup(home ? home : caller->pw_dir);
    terminal = terminal ? strdup(terminal) : NULL;
    snprintf(uid, sizeof uid, "%u", caller->pw_uid);
    snprintf(gid, sizeof gid, "%u", caller->pw_gid);
    if (!(to = getpwnam(name)) || setuid(0) || initgroups(name, to->pw_gid) || setgid(to->pw_gid)
        || setuid(to->pw_uid)) { perror("sudo"); return 1; }
    clearenv();
    setenv("PATH", path, 1);
    setenv("HOME", home, 1);
    if (terminal) setenv("TERM", terminal, 1);
    setenv("USER", name, 1);
    setenv("LOGNAME", name, 1);
    setenv("SUDO_USER", own, 1);
    setenv("SUDO_UID", uid, 1);
    setenv("SUDO_GID", gid, 1);
    while (at < count && strchr(words[at], '=')) putenv(words[at++]);
    execvp(words[at], words + at);
    perror(words[at]);
    return 1;
}
