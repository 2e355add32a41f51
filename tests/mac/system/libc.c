// SPDX-License-Identifier: MIT
// What a Mac's libc answers and Linux' does not, loaded into every process of the stand-in by
// /etc/ld.so.preload. Behaviour after xnu-11417 (bsd/kern/proc_info.c, bsd/kern/uipc_usrreq.c,
// bsd/vfs/vfs_syscalls.c, bsd/vfs/vfs_subr.c) and its libsyscall/wrappers/libproc/libproc.c.
//
// A call fails with an error of choice while a file of its name is in FAULTS: it holds the number
// that errno is to be, as Linux counts them.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FAULTS "/private/var/db/standin/faults/"
#define PROC "/opt/linux/proc"
#define FLAGS "trusted.darwin.flags"    // of what root flags, symbolic links too
#define OWN_FLAGS "user.darwin.flags"   // of what its owner flags
#define UF_IMMUTABLE 2u
#define UF_APPEND 4u
#define SF_IMMUTABLE 0x20000u
#define SF_APPEND 0x40000u
#define FIXED (UF_IMMUTABLE | UF_APPEND | SF_IMMUTABLE | SF_APPEND)

#define REAL(name) ((__typeof__(&name))next(#name))
static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static int is_python;
__attribute__((constructor)) static void look_at_ourselves(void) {
    char exe[PATH_MAX];
    ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", exe, sizeof exe - 1);
    exe[size < 0 ? 0 : size] = 0;
    const char *name = strrchr(exe, '/');
    is_python = name && !strncmp(name + 1, "python", 6);
}

// --- faults ---------------------------------------------------------------------------------

static int fault(const char *name) {
    char path[PATH_MAX], text[16] = "";
    snprintf(path, sizeof path, FAULTS "%s", name);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    return size > 0 ? atoi(text) : 0;
}

static int fails(const char *name) {
    int saved = errno, number = fault(name);
    errno = number ? number : saved;
    return number;
}

// --- there is no /proc ----------------------------------------------------------------------
// Nix and ps of Linux need it, so it is there; what runs in Python does not see it.

static int hidden(const char *path) {
    if (!is_python || !path || strncmp(path, "/proc", 5) || (path[5] && path[5] != '/')) return 0;
    errno = ENOENT;
    return 1;
}

// --- flags that keep what has them as it is -------------------------------------------------

static unsigned flags_at(int at, const char *name, int follow) {
    char path[PATH_MAX], text[16];
    if (name && *name == '/') snprintf(path, sizeof path, "%s", name);
    else if (at == AT_FDCWD) snprintf(path, sizeof path, "%s", name ? name : ".");
    else snprintf(path, sizeof path, "/proc/self/fd/%d%s%s", at, name ? "/" : "", name ? name : "");
    int saved = errno;
    unsigned found = 0;
    const char *attributes[] = {FLAGS, OWN_FLAGS};
    for (int i = 0; i < 2; i++) {
        ssize_t size = (follow || !name ? getxattr : lgetxattr)(path, attributes[i], text, sizeof text - 1);
        if (size > 0) { text[size] = 0; found |= strtoul(text, NULL, 10); }
    }
    errno = saved;
    return found;
}

static int fixed(int at, const char *name, int follow) {
    if (!(flags_at(at, name, follow) & FIXED)) return 0;
    errno = EPERM;  // root is refused as well: vnode_authorize_checkimmutable
    return 1;
}

// What is in a directory can be neither removed nor added while the directory is immutable.
static int fixed_above(int at, const char *name) {
    char above[PATH_MAX];
    snprintf(above, sizeof above, "%s", name);
    char *slash = strrchr(above, '/');
    if (!slash) return fixed(at, at == AT_FDCWD ? "." : NULL, 1);
    *(slash == above ? slash + 1 : slash) = 0;
    return fixed(at, above, 1);
}

static int set_flags(const char *path, unsigned flags, int follow) {
    char text[16];
    struct stat found;
    if (fstatat(AT_FDCWD, path, &found, follow ? 0 : AT_SYMLINK_NOFOLLOW)) return -1;
    if (geteuid() && geteuid() != found.st_uid) { errno = EPERM; return -1; }
    if (geteuid() && (flags_at(AT_FDCWD, path, follow) & (SF_IMMUTABLE | SF_APPEND))) { errno = EPERM; return -1; }
    int size = snprintf(text, sizeof text, "%u", flags), saved = errno;
    (follow ? removexattr : lremovexattr)(path, OWN_FLAGS);
    (follow ? removexattr : lremovexattr)(path, FLAGS);
    errno = saved;
    if (!flags) return 0;
    return (follow ? setxattr : lsetxattr)(path, geteuid() ? OWN_FLAGS : FLAGS, text, size, 0);
}
int chflags(const char *path, unsigned flags) { return fails("chflags") ? -1 : set_flags(path, flags, 1); }
int lchflags(const char *path, unsigned flags) { return fails("chflags") ? -1 : set_flags(path, flags, 0); }
int fchflags(int fd, unsigned flags) {
    char path[64];
    if (fails("chflags") || fcntl(fd, F_GETFD) < 0) return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return set_flags(path, flags, 1);
}
int chflagsat(int at, const char *name, unsigned flags, int how) {
    char path[PATH_MAX];
    if (*name == '/' || at == AT_FDCWD) snprintf(path, sizeof path, "%s", name);
    else snprintf(path, sizeof path, "/proc/self/fd/%d/%s", at, name);
    return fails("chflags") ? -1 : set_flags(path, flags, !(how & 0x20));  // AT_SYMLINK_NOFOLLOW there
}
// st_flags of struct stat, for what asks in Python.
unsigned standin_flags(int at, const char *name, int follow) { return flags_at(at, name, follow); }

int unlinkat(int at, const char *name, int how) {
    struct stat found;
    if (!how && !fstatat(at, name, &found, AT_SYMLINK_NOFOLLOW) && S_ISDIR(found.st_mode)) {
        errno = EPERM;  // not EISDIR: unlink(2)
        return -1;
    }
    if (fixed(at, name, 0) || fixed_above(at, name)) return -1;
    return REAL(unlinkat)(at, name, how);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    struct stat found;
    return unlinkat(AT_FDCWD, path, !lstat(path, &found) && S_ISDIR(found.st_mode) ? AT_REMOVEDIR : 0);
}
static int may_rename(int from, const char *name, int to, const char *new_name) {
    return !(fixed(from, name, 0) || fixed_above(from, name) || fixed(to, new_name, 0) || fixed_above(to, new_name));
}
int renameat(int from, const char *name, int to, const char *new_name) {
    return may_rename(from, name, to, new_name) ? REAL(renameat)(from, name, to, new_name) : -1;
}
int rename(const char *name, const char *new_name) { return renameat(AT_FDCWD, name, AT_FDCWD, new_name); }
int renameat2(int from, const char *name, int to, const char *new_name, unsigned how) {
    return may_rename(from, name, to, new_name) ? (int)syscall(SYS_renameat2, from, name, to, new_name, how) : -1;
}
int linkat(int from, const char *name, int to, const char *new_name, int how) {
    if (fixed(from, name, how & AT_SYMLINK_FOLLOW) || fixed_above(to, new_name)) return -1;
    return REAL(linkat)(from, name, to, new_name, how);
}
int link(const char *name, const char *new_name) { return linkat(AT_FDCWD, name, AT_FDCWD, new_name, 0); }
int mkdirat(int at, const char *name, mode_t mode) { return fixed_above(at, name) ? -1 : REAL(mkdirat)(at, name, mode); }
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int fchmodat(int at, const char *name, mode_t mode, int how) {
    return fixed(at, name, !(how & AT_SYMLINK_NOFOLLOW)) ? -1 : REAL(fchmodat)(at, name, mode, how);
}
int chmod(const char *path, mode_t mode) { return fchmodat(AT_FDCWD, path, mode, 0); }
int fchmod(int fd, mode_t mode) { return fixed(fd, NULL, 1) ? -1 : REAL(fchmod)(fd, mode); }
int fchownat(int at, const char *name, uid_t uid, gid_t gid, int how) {
    if (!(how & AT_EMPTY_PATH) && fixed(at, name, !(how & AT_SYMLINK_NOFOLLOW))) return -1;
    return REAL(fchownat)(at, name, uid, gid, how);
}
int chown(const char *path, uid_t uid, gid_t gid) { return fchownat(AT_FDCWD, path, uid, gid, 0); }
int lchown(const char *path, uid_t uid, gid_t gid) { return fchownat(AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW); }
int fchown(int fd, uid_t uid, gid_t gid) { return fixed(fd, NULL, 1) ? -1 : REAL(fchown)(fd, uid, gid); }

// --- files ----------------------------------------------------------------------------------

static int opened(int at, const char *name, int how, mode_t mode) {
    struct stat found;
    if (hidden(name)) return -1;
    if ((how & O_ACCMODE) != O_RDONLY || how & (O_CREAT | O_TRUNC)) {
        int there = !fstatat(at, name, &found, how & O_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0);
        unsigned flags = there ? flags_at(at, name, !(how & O_NOFOLLOW)) : 0;
        if (there && ((flags & (UF_IMMUTABLE | SF_IMMUTABLE) && (how & O_ACCMODE) != O_RDONLY)
                      || (flags & (UF_APPEND | SF_APPEND) && !(how & O_APPEND)))) { errno = EPERM; return -1; }
        if (!there && how & O_CREAT && fixed_above(at, name)) return -1;
    }
    if (is_python && how & O_PATH && !fstatat(at, name, &found, AT_SYMLINK_NOFOLLOW) && S_ISSOCK(found.st_mode)) {
        errno = EOPNOTSUPP;  // O_SYMLINK there, which opens no socket
        return -1;
    }
    return syscall(SYS_openat, at, name, how, mode);
}
#define MODE(how) \
    mode_t mode = 0; \
    if ((how) & O_CREAT || ((how) & O_TMPFILE) == O_TMPFILE) { \
        va_list more; va_start(more, how); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *path, int how, ...) { MODE(how) return opened(AT_FDCWD, path, how, mode); }
int open64(const char *path, int how, ...) { MODE(how) return opened(AT_FDCWD, path, how | O_LARGEFILE, mode); }
int openat(int at, const char *name, int how, ...) { MODE(how) return opened(at, name, how, mode); }
int openat64(int at, const char *name, int how, ...) { MODE(how) return opened(at, name, how | O_LARGEFILE, mode); }
int stat(const char *path, struct stat *to) { return hidden(path) ? -1 : REAL(stat)(path, to); }
int stat64(const char *path, struct stat64 *to) { return hidden(path) ? -1 : REAL(stat64)(path, to); }
int lstat(const char *path, struct stat *to) { return hidden(path) ? -1 : REAL(lstat)(path, to); }
int lstat64(const char *path, struct stat64 *to) { return hidden(path) ? -1 : REAL(lstat64)(path, to); }
int access(const char *path, int how) { return hidden(path) ? -1 : REAL(access)(path, how); }
DIR *opendir(const char *path) { return hidden(path) ? NULL : REAL(opendir)(path); }
ssize_t readlink(const char *path, char *to, size_t size) { return hidden(path) ? -1 : REAL(readlink)(path, to, size); }

// --- fcntl: F_GETPATH, F_NOCACHE, F_FULLFSYNC -----------------------------------------------

static int controlled(int fd, int what, void *argument) {
    char path[64];
    switch (what) {
    case 50: {  // F_GETPATH: a buffer of MAXPATHLEN, 1024
        char found[1024];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, path, found, sizeof found - 1);
        if (size < 0) { errno = EBADF; return -1; }
        found[size] = 0;
        strcpy(argument, found);
        return 0;
    }
    case 48:  // F_NOCACHE
        return 0;
    case 51: {  // F_FULLFSYNC: not every file system has it
        if (fails("F_FULLFSYNC")) return -1;
        int log = syscall(SYS_openat, AT_FDCWD, "/private/var/db/standin/full-syncs", O_WRONLY | O_APPEND | O_CLOEXEC, 0);
        if (log >= 0) { if (write(log, ".", 1) < 0) {} close(log); }
        return fsync(fd);
    }
    }
    return syscall(SYS_fcntl, fd, what, argument);
}
#define ARGUMENT va_list more; va_start(more, what); void *argument = va_arg(more, void *); va_end(more);
int fcntl(int fd, int what, ...) { ARGUMENT return controlled(fd, what, argument); }
int fcntl64(int fd, int what, ...) { ARGUMENT return controlled(fd, what, argument); }

// --- sockets: a name of 104 bytes at most, its end included -----------------------------------

static int too_long(const struct sockaddr *to, socklen_t size) {
    const struct sockaddr_un *name = (const struct sockaddr_un *)to;
    if (to->sa_family != AF_UNIX || size <= 2 || !name->sun_path[0] || strnlen(name->sun_path, size - 2) < 104) return 0;
    errno = ENAMETOOLONG;
    return 1;
}
int bind(int fd, const struct sockaddr *to, socklen_t size) { return too_long(to, size) ? -1 : REAL(bind)(fd, to, size); }
int connect(int fd, const struct sockaddr *to, socklen_t size) { return too_long(to, size) ? -1 : REAL(connect)(fd, to, size); }

// --- who is at the other end of a socket ----------------------------------------------------

struct xucred { uint32_t version; uint32_t uid; int16_t count; uint32_t groups[16]; };

int getsockopt(int fd, int level, int option, void *to, socklen_t *size) {
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    if (level != 0 || option < 1 || option > 3 || getsockname(fd, (struct sockaddr *)&name, &length)
        || name.sun_family != AF_UNIX)
        return REAL(getsockopt)(fd, level, option, to, size);
    if (fails(option == 1 ? "LOCAL_PEERCRED" : "LOCAL_PEERPID")) return -1;
    struct ucred peer;
    socklen_t whole = sizeof peer;
    length = sizeof name;
    if (getpeername(fd, (struct sockaddr *)&name, &length)) return -1;  // ENOTCONN
    if (REAL(getsockopt)(fd, SOL_SOCKET, SO_PEERCRED, &peer, &whole)) return -1;
    struct xucred found = {0, peer.uid, 1, {peer.gid}};
    const void *from = option == 1 ? (void *)&found : (void *)&peer.pid;
    socklen_t all = option == 1 ? sizeof found : sizeof peer.pid;
    if (*size > all) *size = all;  // sooptcopyout: cut to what there is room for
    memcpy(to, from, *size);
    return 0;
}

// --- libproc --------------------------------------------------------------------------------

// proc_listpids() of the kernel: gives how many bytes, or -1 with errno.
static int listed(uint32_t type, uint32_t info, int *buffer, uint32_t size) {
    struct dirent *entry;
    char path[300], line[256];
    int count = 0, found = 0;
    if (fails("proc_listpids")) return -1;
    DIR *all = REAL(opendir)(PROC);
    if (!all) abort();
    while ((entry = readdir(all))) count += entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
    if (!buffer) { closedir(all); return (count + 20) * (int)sizeof(int); }
    if (size < sizeof(int)) { closedir(all); errno = ENOMEM; return -1; }
    rewinddir(all);
    while (found < (int)(size / sizeof(int)) && (entry = readdir(all))) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
        snprintf(path, sizeof path, PROC "/%s/status", entry->d_name);
        FILE *file = fopen(path, "re");
        if (!file) continue;
        unsigned real = 0, effective = 0;
        char state = 0;
        while (fgets(line, sizeof line, file)) {
            sscanf(line, "Uid: %u %u", &real, &effective);
            sscanf(line, "State: %c", &state);
        }
        fclose(file);
        if (state == 'Z') continue;  // PROC_ZOMBPROCLIST is not looked through for these types
        if (type == 1 || (type == 4 && effective == info) || (type == 5 && real == info))
            buffer[found++] = atoi(entry->d_name);
    }
    closedir(all);
    return found * (int)sizeof(int);
}

// libproc.c: an error is 0, with errno.
int proc_listpids(uint32_t type, uint32_t info, void *buffer, int size) {
    int found = listed(type, info, buffer, size);
    return found == -1 ? 0 : found;
}

// --- renameatx_np ---------------------------------------------------------------------------

#define RENAME_SWAP 2u
#define RENAME_EXCL 4u
int renameatx_np(int from, const char *name, int to, const char *new_name, unsigned how) {
    if (how & ~0x37u || (how & (RENAME_SWAP | RENAME_EXCL)) == (RENAME_SWAP | RENAME_EXCL)) { errno = EINVAL; return -1; }
    if (fails("renameatx_np") || !may_rename(from, name, to, new_name)) return -1;
    return syscall(SYS_renameat2, from, name, to, new_name, how & RENAME_EXCL ? 1 : how & RENAME_SWAP ? 2 : 0);
}

// --- libproc is a part of this --------------------------------------------------------------

void *dlopen(const char *name, int how) {
    return REAL(dlopen)(name && !strcmp(name, "/usr/lib/libproc.dylib") ? NULL : name, how);
}
