/* The one program of the tests' containers: static, told what to do by its arguments. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static int cat(const char *path) {
    char buffer[4096];
    ssize_t n;
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        printf("%s: %s\n", path, strerror(errno));
        return 0;
    }
    fflush(stdout);
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, n) != n) return 1;
    close(fd);
    return 0;
}

static int one(int argc, char **argv) {
    const char *verb = argv[0], *argument = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "exit")) exit(atoi(argument));
    if (!strcmp(verb, "say")) { fputs(argument, stdout); fputc('\n', stdout); }
    else if (!strcmp(verb, "print")) fputs(argument, stdout);
    else if (!strcmp(verb, "err")) { fputs(argument, stderr); fputc('\n', stderr); }
    else if (!strcmp(verb, "cat")) return cat(argument);
    else if (!strcmp(verb, "wait")) { fflush(stdout); for (;;) pause(); }
    else if (!strcmp(verb, "read")) { char c; fflush(stdout); while (read(0, &c, 1) > 0) if (c == '\n') break; }
    else if (!strcmp(verb, "copy")) { char b[4096]; ssize_t n; fflush(stdout); while ((n = read(0, b, sizeof b)) > 0) if (write(1, b, n) != n) return 1; }
    else if (!strcmp(verb, "cwd")) printf("cwd %s\n", getcwd(NULL, 0));
    else if (!strcmp(verb, "die")) { fflush(stdout); kill(getpid(), SIGKILL); raise(atoi(argument)); }
    else if (!strcmp(verb, "abort")) { signal(SIGTERM, SIG_DFL); raise(SIGTERM); }
    else if (!strcmp(verb, "link")) { char b[256] = ""; ssize_t n = readlink(argument, b, 255); (void)n; printf("%s -> %s\n", argument, b); }
    else if (!strcmp(verb, "write")) { int fd = open(argument, O_WRONLY | O_CREAT, 0600); printf("write %s: %s\n", argument, fd < 0 ? strerror(errno) : "ok"); }
    else if (!strcmp(verb, "stat")) { struct stat s; if (lstat(argument, &s)) printf("stat %s: %s\n", argument, strerror(errno)); else printf("stat %s: %o %u:%u\n", argument, s.st_mode, s.st_uid, s.st_gid); }
    else if (!strcmp(verb, "ls")) { DIR *d = opendir(argument); struct dirent *e; if (!d) printf("ls %s: %s\n", argument, strerror(errno)); else while ((e = readdir(d))) if (e->d_name[0] != '.') printf("ls %s: %s\n", argument, e->d_name); }
    else if (!strcmp(verb, "fds")) { for (int fd = 0; fd < 1024; fd++) if (fcntl(fd, F_GETFD) >= 0) printf("fd %d\n", fd); }
    else if (!strcmp(verb, "size")) { struct winsize w; if (ioctl(0, TIOCGWINSZ, &w)) printf("size: %s\n", strerror(errno)); else printf("size %d %d\n", w.ws_row, w.ws_col); }
    else if (!strcmp(verb, "tty")) { int fd = open("/dev/tty", O_RDWR); printf("tty %s\n", fd < 0 ? strerror(errno) : "ok"); }
    else if (!strcmp(verb, "fork")) { fflush(stdout); if (fork() == 0) { if (fork() == 0) { char c; fflush(stdout); while (read(0, &c, 1) > 0); printf("orphan ends\n"); fflush(stdout); exit(0); } exit(0); } }
    else if (!strcmp(verb, "flood")) {
        long left = atol(argument); static char block[64 * 100];
        for (int i = 0; i < 64; i++) { memset(block + i * 100, 'x', 99); block[i * 100 + 99] = '\n'; }
        fflush(stdout);
        for (; left > 0; left -= sizeof block) for (size_t done = 0; done < sizeof block;) { ssize_t n = write(1, block + done, sizeof block - done); if (n < 0) return 1; done += n; }
    }
    else if (!strcmp(verb, "long")) { for (long i = atol(argument); i > 0; i--) putchar('y'); putchar('\n'); }
    else return 2;
    return 0;
}

/* Arguments: verbs with one argument each, in turn. */
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i += 2) {
        int failed = one(argc - i, argv + i);
        fflush(stdout);
        if (failed) return failed;
    }
    return 0;
}
