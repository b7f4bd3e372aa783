/*
 * Common part of the test programs: our own definitions of the live update interface and the frame of a test.
 *
 * Every program says on standard output "PASS name", "FAIL name: why" or "SKIP name: no /dev/liveupdate" and ends
 * with 0, 1 or 77; lines with two leading spaces are details. A stage that ends in a kexec of its own (-k) says
 * nothing. Build: cc -O2 -Wall -Wextra -Werror [-static] -pthread NAME.c. The stage is argument 1 (a number) or
 * LUOSIM_GENERATION; with the argument -k a stage that is to be followed by a kexec calls reboot(KEXEC) itself.
 */
#ifndef LUO_H
#define LUO_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define LUO_DEVICE "/dev/liveupdate"
#define LUO_CREATE 0xBA00
#define LUO_TAKE 0xBA01
#define LUO_PRESERVE 0xBA40
#define LUO_RETRIEVE 0xBA41
#define LUO_FINISH 0xBA42
#define LUO_NAME 0xBA43
#define LUO_NAME_BYTES 64

struct luo_session {
	uint32_t size;
	int32_t fd;
	char name[LUO_NAME_BYTES];
};
struct luo_file {
	uint32_t size;
	int32_t fd;
	uint64_t token;
};
struct luo_finish {
	uint32_t size;
	uint32_t zero;
};
struct luo_name {
	uint32_t size;
	uint32_t zero;
	char name[LUO_NAME_BYTES];
};
_Static_assert(sizeof(struct luo_session) == 72 && offsetof(struct luo_session, name) == 8, "session");
_Static_assert(sizeof(struct luo_file) == 16 && offsetof(struct luo_file, token) == 8, "file");
_Static_assert(sizeof(struct luo_finish) == 8, "finish");
_Static_assert(sizeof(struct luo_name) == 72 && offsetof(struct luo_name, name) == 8, "name");

extern const char *const test_name;

/* One line in one write. A failing child says why, its parent may add a FAIL of its own: the first counts. */
static inline void luo_say(const char *word, const char *format, va_list args)
{
	char why[512], line[640];
	int n;

	vsnprintf(why, sizeof why, format, args);
	n = snprintf(line, sizeof line, "%s %s%s%s\n", word, test_name, *why ? ": " : "", why);
	if (n > 0 && write(1, line, (size_t)n) < 0)
		_exit(1);
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	luo_say("FAIL", format, args);
	va_end(args);
	_exit(1);
}

__attribute__((noreturn, format(printf, 2, 3))) static inline void finish_with(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	luo_say(code == 77 ? "SKIP" : "PASS", format, args);
	va_end(args);
	_exit(code);
}

#define pass() finish_with(0, "%s", "")

/* Fails with the line number, the expression and errno. */
#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail("line %d: %s (errno %d)", __LINE__, #condition, errno);               \
	} while (0)

/* The call must return -1 with this errno. */
#define must_fail(call, number)                                                                    \
	do {                                                                                       \
		errno = 0;                                                                         \
		long long got_ = (long long)(call);                                                \
		if (got_ != -1 || errno != (number))                                               \
			fail("line %d: %s gave %lld, errno %d, want %s", __LINE__, #call, got_,    \
			     errno, #number);                                                      \
	} while (0)

static inline int luo_open_now(void)
{
	return open(LUO_DEVICE, O_RDWR | O_CLOEXEC);
}

/* Opens the device or skips the test. */
static inline int luo_open(void)
{
	int fd = luo_open_now();

	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		finish_with(77, "%s", "no /dev/liveupdate");
	if (fd < 0)
		fail("open %s: errno %d", LUO_DEVICE, errno);
	return fd;
}

static inline int luo_get_session(int device, unsigned long command, const char *name)
{
	struct luo_session arg;

	memset(&arg, 0, sizeof arg);
	arg.size = sizeof arg;
	arg.fd = -1;
	memcpy(arg.name, name, strnlen(name, LUO_NAME_BYTES - 1));
	return ioctl(device, command, &arg) < 0 ? -1 : arg.fd;
}

static inline int luo_create(int device, const char *name)
{
	return luo_get_session(device, LUO_CREATE, name);
}

static inline int luo_take(int device, const char *name)
{
	return luo_get_session(device, LUO_TAKE, name);
}

static inline int luo_preserve(int session, int fd, uint64_t token)
{
	struct luo_file arg = { sizeof arg, fd, token };

	return ioctl(session, LUO_PRESERVE, &arg);
}

static inline int luo_retrieve(int session, uint64_t token)
{
	struct luo_file arg = { sizeof arg, -1, token };

	return ioctl(session, LUO_RETRIEVE, &arg) < 0 ? -1 : arg.fd;
}

static inline int luo_finish(int session)
{
	struct luo_finish arg = { sizeof arg, 0 };

	return ioctl(session, LUO_FINISH, &arg);
}

static inline int luo_kexec(void)
{
	return (int)syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
}

/* The gate records that there is an image; it must be a regular file that is not empty, as for a kernel. */
static inline int luo_load_image(const char *cmdline)
{
	int image = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	long r;

	if (image < 0)
		return -1;
	r = syscall(SYS_kexec_file_load, image, -1, strlen(cmdline) + 1, cmdline, 4UL /* no initramfs */);
	close(image);
	return (int)r;
}

static inline int luo_has(int argc, char **argv, const char *word)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], word))
			return 1;
	return 0;
}

static inline int luo_stage(int argc, char **argv)
{
	const char *generation = getenv("LUOSIM_GENERATION");

	for (int i = 1; i < argc; i++)
		if (argv[i][0] >= '1' && argv[i][0] <= '9')
			return atoi(argv[i]);
	return generation && atoi(generation) > 0 ? atoi(generation) : 1;
}

/* End of a stage before a kexec: with -k loads an image and jumps, otherwise reports and leaves. */
__attribute__((noreturn)) static inline void luo_end_stage(int argc, char **argv)
{
	if (luo_has(argc, argv, "-k")) {
		must(luo_load_image("kho=on liveupdate=on luo_test=1") == 0);
		luo_kexec();
		fail("reboot(KEXEC) returned, errno %d", errno);
	}
	pass();
}

/* A memfd of `size` bytes with `text` at its begin; position 0. */
static inline int luo_memfd(const char *text, off_t size)
{
	int fd = memfd_create("luo-test", MFD_CLOEXEC);

	must(fd >= 0);
	must(ftruncate(fd, size) == 0);
	must(pwrite(fd, text, strlen(text), 0) == (ssize_t)strlen(text));
	return fd;
}

static inline void luo_check_text(int fd, const char *text, off_t at)
{
	char got[256] = { 0 };
	size_t n = strlen(text);

	must(n < sizeof got);
	must(pread(fd, got, n, at) == (ssize_t)n);
	if (memcmp(got, text, n))
		fail("content is \"%s\", want \"%s\"", got, text);
}

/*
 * Leaves a child of a new session behind that holds all descriptors and sleeps. It has let go of standard output,
 * so that pipes of the caller end.
 */
static inline pid_t luo_custodian(void)
{
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		int null = open("/dev/null", O_RDWR);

		setsid();
		for (int i = 0; i < 3; i++)
			dup2(null, i);
		if (null > 2)
			close(null);
		for (;;)
			pause();
	}
	return child;
}

static inline int luo_send_fd(int socket, int fd)
{
	char byte = 'f', space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
	return sendmsg(socket, &msg, 0) == 1 ? 0 : -1;
}

static inline int luo_recv_fd(int socket)
{
	char byte, space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
	struct cmsghdr *cmsg;
	int fd = -1;

	if (recvmsg(socket, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(cmsg), sizeof fd);
	return fd;
}

/* Waits for a child that must end with 0. */
static inline void luo_wait(pid_t child)
{
	int status = -1;

	while (waitpid(child, &status, 0) < 0)
		must(errno == EINTR);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail("child ended with status 0x%x", (unsigned)status);
}

#endif
