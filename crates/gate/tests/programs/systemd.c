/*
 * systemd [1|2] [-k]: a manager's fd store and shutdown in miniature.
 *
 * Stage 1: a "service" puts a sealed memfd and a session of its own into the fd store (SCM_RIGHTS); the manager
 * classifies them (same-file test, fstatfs, GET_NAME or link text, epoll add), then executes itself again as the
 * shutdown program with the descriptors inherited; that makes the session "systemd", preserves with tokens 1..,
 * last the sealed mapping under token 0, closes the device, keeps the sessions. Without -k a custodian keeps them.
 * Stage 2: retrieve "systemd", mapping through a read-only re-open, all entries, FINISH and close.
 */
#include "luo.h"

#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/vfs.h>

const char *const test_name = "systemd";

#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY 1027
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif
#define ANON_INODE_MAGIC 0x09041934
#define DIRECT "luo-test-direct"
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* 1: the same open file, 0: another. */
static int same_file(int a, int b)
{
	int r = fcntl(a, F_DUPFD_QUERY, b);

	if (r >= 0)
		return r;
	r = (int)syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b);
	if (r < 0)
		fail("neither F_DUPFD_QUERY nor kcmp: errno %d", errno);
	return r == 0;
}

static int sealed(const char *text)
{
	int fd = memfd_create("store", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("store", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(fd >= 0);
	must(pwrite(fd, text, strlen(text), 0) == (ssize_t)strlen(text));
	must(fcntl(fd, F_ADD_SEALS, SEALS) == 0);
	return fd;
}

/* Name of a session into `name`; 0 if the descriptor is no session. */
static int session_name(int fd, char *name, size_t size)
{
	static const char prefix[] = "anon_inode:[luo_session] ";
	struct luo_name arg = { .size = sizeof arg };
	char path[64], text[256] = { 0 };
	struct statfs fs;

	must(fstatfs(fd, &fs) == 0);
	if (fs.f_type != ANON_INODE_MAGIC)
		return 0;
	if (ioctl(fd, LUO_NAME, &arg) == 0) {
		snprintf(name, size, "%.63s", arg.name);
		return 1;
	}
	if (errno != EINVAL && errno != ENOTTY && errno != EOPNOTSUPP)
		fail("GET_NAME: errno %d", errno);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	must(readlink(path, text, sizeof text - 1) > 0);
	if (strncmp(text, prefix, sizeof prefix - 1))
		return 0;
	snprintf(name, size, "%.63s", text + sizeof prefix - 1);
	return 1;
}

/* The service: opens the device, makes its session, stores both, ends with its copies open. */
static void service(int socket)
{
	int device = luo_open(), session = luo_create(device, DIRECT), memory = sealed("direct");

	must(session >= 0);
	must(luo_preserve(session, memory, 42) == 0);
	must(luo_send_fd(socket, sealed("stored")) == 0);
	must(luo_send_fd(socket, session) == 0);
	_exit(0);
}

static void classify(int stored, int session)
{
	struct epoll_event event = { 0 };
	int epoll = epoll_create1(EPOLL_CLOEXEC), copy = dup(session), null = eventfd(0, EFD_CLOEXEC), r;
	char name[64];

	must(epoll >= 0 && copy >= 0);
	must(same_file(session, copy) == 1);
	must(same_file(session, stored) == 0);
	r = epoll_ctl(epoll, EPOLL_CTL_ADD, session, &event);
	must(r < 0 && errno == EPERM);
	r = epoll_ctl(epoll, EPOLL_CTL_ADD, stored, &event);
	must(r < 0 && errno == EPERM);
	must(session_name(session, name, sizeof name) == 1);
	must(!strcmp(name, DIRECT));
	must(session_name(stored, name, sizeof name) == 0);
	must(session_name(null, name, sizeof name) == 0);
	close(epoll);
	close(copy);
	close(null);
}

/* The manager: fills its store, executes the shutdown program as the same pid. */
static void manager(char **argv)
{
	int pair[2], stored, session;
	char a[16], b[16], *args[] = { argv[0], (char *)"shutdown", a, b, NULL, NULL };
	pid_t child;

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	child = fork();
	must(child >= 0);
	if (child == 0)
		service(pair[1]);
	close(pair[1]);
	stored = luo_recv_fd(pair[0]);
	session = luo_recv_fd(pair[0]);
	if (stored < 0 || session < 0) {
		int status = 0;

		waitpid(child, &status, 0);
		_exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
	}
	luo_wait(child);
	close(pair[0]);
	classify(stored, session);
	must(fcntl(stored, F_SETFD, 0) == 0 && fcntl(session, F_SETFD, 0) == 0);
	snprintf(a, sizeof a, "%d", stored);
	snprintf(b, sizeof b, "%d", session);
	for (int i = 1; argv[i]; i++)
		if (!strcmp(argv[i], "-k"))
			args[4] = (char *)"-k";
	execv("/proc/self/exe", args);
	fail("execve: errno %d", errno);
}

static void shut_down(int argc, char **argv)
{
	int stored = atoi(argv[2]), direct = atoi(argv[3]), device, session, mapping;
	char name[64], json[256];

	must(session_name(direct, name, sizeof name) == 1 && !strcmp(name, DIRECT));
	device = luo_open();
	session = luo_create(device, "systemd");
	must(session >= 0);
	must_fail(luo_preserve(session, direct, 1), ENOENT);
	must(luo_preserve(session, stored, 1) == 0);
	snprintf(json, sizeof json, "{\"version\":1,\"fds\":[1],\"sessions\":[\"%s\"]}", name);
	mapping = sealed(json);
	must(luo_preserve(session, mapping, 0) == 0);
	close(mapping);
	close(device);
	if (!luo_has(argc, argv, "-k"))
		luo_custodian();
	luo_end_stage(argc, argv);
}

static void check_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	/* 6.19 brings back F_SEAL_SEAL only; all others at least what was there. */
	must(seals == F_SEAL_SEAL || (seals & SEALS) == SEALS);
	must(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void second(void)
{
	int device = luo_open(), session = luo_take(device, "systemd"), mapping, again, stored, direct, memory;
	char path[64], json[256] = { 0 };

	must(session >= 0);
	mapping = luo_retrieve(session, 0);
	must(mapping >= 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", mapping);
	again = open(path, O_RDONLY | O_CLOEXEC);
	must(again >= 0);
	must(read(again, json, sizeof json - 1) > 0);
	must(strstr(json, "\"version\":1") && strstr(json, DIRECT));
	check_sealed(mapping);
	stored = luo_retrieve(session, 1);
	must(stored >= 0);
	check_sealed(stored);
	luo_check_text(stored, "stored", 0);
	direct = luo_take(device, DIRECT);
	must(direct >= 0);
	must(session_name(direct, path, sizeof path) == 1 && !strcmp(path, DIRECT));
	must(luo_finish(session) == 0);
	close(session);
	close(device);
	memory = luo_retrieve(direct, 42);
	must(memory >= 0);
	luo_check_text(memory, "direct", 0);
	/* No FINISH for this one: the close does it. */
	close(direct);
	luo_check_text(memory, "direct", 0);
	device = luo_open();
	must_fail(luo_take(device, DIRECT), ENOENT);
	must_fail(luo_take(device, "systemd"), ENOENT);
}

int main(int argc, char **argv)
{
	if (argc >= 4 && !strcmp(argv[1], "shutdown"))
		shut_down(argc, argv);
	if (luo_stage(argc, argv) == 1)
		manager(argv);
	second();
	pass();
}
