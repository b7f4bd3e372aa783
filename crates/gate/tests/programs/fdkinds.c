/*
 * fdkinds: all that a program can see of the device's and a session's descriptor besides the live update calls.
 *
 * No stages. Expectations are those of kernels 6.19 to 7.3, the same in all but GET_NAME (not asked here). With -b
 * what the node and its driver answer by themselves is left out: without privilege the gate borrows a device.
 * Every difference is printed as a line "  what: got X, want Y"; the last line says how many.
 */
#include "luo.h"

#include <linux/openat2.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

const char *const test_name = "fdkinds";

#define TMPFS_MAGIC_ 0x01021994
#define ANON_INODE_MAGIC_ 0x09041934

static int checks, wrong, borrowed;

static void expect(const char *what, long long got, long long want)
{
	checks++;
	if (got == want)
		return;
	wrong++;
	dprintf(1, "  %s: got %lld, want %lld\n", what, got, want);
}

/* Result of a call: negative errno or its value. */
#define result(call) ({ errno = 0; long long r_ = (long long)(call); r_ < 0 ? -(long long)errno : r_; })
#define check(label, call, want) expect(label ": " #call, result(call), want)

static long long map_errno(int fd)
{
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

	return map == MAP_FAILED ? -errno : 0;
}

static void expect_link(const char *what, const char *path, const char *want)
{
	char text[256] = { 0 };

	checks++;
	if (readlink(path, text, sizeof text - 1) > 0 && !strcmp(text, want))
		return;
	wrong++;
	dprintf(1, "  readlink of %s, %s: got \"%s\", want \"%s\"\n", what, path, text, want);
}

static void check_links(const char *what, int fd, const char *want)
{
	static const char *const roots[] = { "/proc/self/fd", "/proc/thread-self/fd", "/dev/fd" };
	char path[64], text[256] = { 0 };
	int dir;

	for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
		snprintf(path, sizeof path, "%s/%d", roots[i], fd);
		expect_link(what, path, want);
	}
	snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), fd);
	expect_link(what, path, want);
	dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
	snprintf(path, sizeof path, "%d", fd);
	must(dir >= 0);
	expect(what, result(readlinkat(dir, path, text, sizeof text)), (long long)strlen(want));
	/* Cut to the buffer, no error. */
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	expect(what, result(readlink(path, text, 5)), 5);
	close(dir);
}

/* What device and session have in common: files without read, write, seek, map and poll. */
static void check_common(int fd, int device)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct pollfd poll_one = { fd, POLLIN | POLLOUT, 0 };
	int epoll = epoll_create1(EPOLL_CLOEXEC), copy, on = 1;
	char byte = 0;

	if (!borrowed || !device) {
		check("common", read(fd, &byte, 1), -EINVAL);
		check("common", write(fd, &byte, 1), -EINVAL);
		check("common", lseek(fd, 0, SEEK_SET), -ESPIPE);
	}
	check("common", map_errno(fd), -ENODEV);
	check("common", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), -EPERM);
	check("common", poll(&poll_one, 1, 0), 1);
	check("common", poll_one.revents, POLLIN | POLLOUT);
	check("common", fcntl(fd, F_GETFD), FD_CLOEXEC);
	check("common", fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	check("common", ioctl(fd, FIONBIO, &on), 0);
	check("common", fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	on = 0;
	check("common", ioctl(fd, FIONBIO, &on), 0);
	check("common", ftruncate(fd, 0), -EINVAL);
	check("common", isatty(fd), 0);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	check("common", copy >= 100, 1);
	check("common", dup3(fd, copy, 0), copy);
	check("common", fcntl(copy, F_GETFD), 0);
	check("common", close(copy), 0);
	check("common", close(epoll), 0);
}

static void check_device_stat(const char *path)
{
	struct stat st = { 0 };
	struct statx stx = { 0 };

	check("path", stat(path, &st), 0);
	check("path", S_ISCHR(st.st_mode), 1);
	if (!borrowed) {
		check("path", st.st_mode & 0777, 0600);
		check("path", major(st.st_rdev), 10);
	}
	check("path", statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &stx), 0);
	check("path", S_ISCHR(stx.stx_mode), 1);
	check("path", access(path, F_OK), 0);
	check("path", access(path, R_OK | W_OK), 0);
	check("path", access(path, X_OK), -EACCES);
	check("path", faccessat(AT_FDCWD, path, F_OK, 0), 0);
}

static void check_device(int fd)
{
	struct luo_session arg = { .size = sizeof arg, .name = "x" };
	struct stat st = { 0 };
	struct statfs fs = { 0 };

	check("device", fstat(fd, &st), 0);
	check("device", S_ISCHR(st.st_mode), 1);
	if (!borrowed)
		check("device", major(st.st_rdev), 10);
	check("device", fstatfs(fd, &fs), 0);
	check("device", fs.f_type, TMPFS_MAGIC_);
	check_links("device", fd, LUO_DEVICE);
	check("device", ioctl(fd, 0xBA02, &arg), -EINVAL);
	check("device", ioctl(fd, LUO_PRESERVE, &arg), -EINVAL);
	check("device", ioctl(fd, 0xBB00, &arg), -ENOTTY);
	check("device", ioctl(fd, 0xBB00, NULL), -EFAULT);
	check("device", ioctl(fd, 0xC048BA00, &arg), -ENOTTY);
	check("device", ioctl(fd, TCGETS, &arg), -ENOTTY);
	check_common(fd, 1);
}

static void check_session(int device, const char *name)
{
	int fd = luo_create(device, name), other;
	struct luo_file arg = { .size = sizeof arg };
	struct stat st = { 0 }, st2 = { 0 };
	struct statfs fs = { 0 };
	char link[128];

	must(fd >= 0);
	other = luo_create(device, "fdkinds-other");
	must(other >= 0);
	check("session", fstat(fd, &st), 0);
	check("session", st.st_mode, 0600);
	check("session", fstat(other, &st2), 0);
	check("session", st.st_ino == st2.st_ino && st.st_dev == st2.st_dev, 1);
	check("session", fstatfs(fd, &fs), 0);
	check("session", fs.f_type, ANON_INODE_MAGIC_);
	snprintf(link, sizeof link, "anon_inode:[luo_session] %s", name);
	check_links("session", fd, link);
	check("session", ioctl(fd, LUO_CREATE, &arg), -EINVAL);
	check("session", ioctl(fd, 0xBA44, &arg), -EINVAL);
	check("session", ioctl(fd, 0xBB40, &arg), -ENOTTY);
	check("session", ioctl(fd, TCGETS, &arg), -EINVAL);
	check("session", ioctl(fd, LUO_PRESERVE, NULL), -EFAULT);
	check_common(fd, 0);
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	check("session", open(link, O_RDWR), geteuid() == 0 ? -ENXIO : -EACCES);
	close(fd);
	close(other);
}

static long long openat2_(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags, .resolve = resolve };

	return syscall(SYS_openat2, dir, path, &how, sizeof how);
}

/* An open of any form: must give the device, which is then busy; returns it closed. */
static void expect_opens(const char *what, long long fd)
{
	int second;

	checks++;
	if (fd < 0) {
		wrong++;
		dprintf(1, "  %s: errno %d\n", what, errno);
		return;
	}
	second = luo_open_now();
	expect(what, second < 0 ? -errno : second, -EBUSY);
	close((int)fd);
	if (second >= 0)
		close(second);
}

static void check_opens(void)
{
	char dir_name[] = "/tmp/fdkinds-XXXXXX", link[64];
	int dev = open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC), root, tmp, here;

	must(dev >= 0 && (root = open("/", O_PATH | O_DIRECTORY)) >= 0 && (here = open(".", O_PATH)) >= 0);
	must(mkdtemp(dir_name) && (tmp = open(dir_name, O_RDONLY | O_DIRECTORY)) >= 0);
	expect_opens("open read-write", open(LUO_DEVICE, O_RDWR));
	expect_opens("open read-only", open(LUO_DEVICE, O_RDONLY));
	expect_opens("open write-only", open(LUO_DEVICE, O_WRONLY));
	expect_opens("open non-blocking", open(LUO_DEVICE, O_RDWR | O_NONBLOCK));
	expect_opens("open no-follow", open(LUO_DEVICE, O_RDWR | O_NOFOLLOW));
	expect_opens("open with dots", open("/dev/../dev/./liveupdate", O_RDWR));
	expect_opens("open with slashes", open("//dev//liveupdate", O_RDWR));
	expect_opens("openat of /dev", openat(dev, "liveupdate", O_RDWR));
	expect_opens("openat of /", openat(root, "dev/liveupdate", O_RDWR));
	expect_opens("openat, absolute, bad directory", openat(-1, LUO_DEVICE, O_RDWR));
	expect_opens("openat2", openat2_(AT_FDCWD, LUO_DEVICE, O_RDWR, 0));
	expect_opens("openat2 beneath", openat2_(dev, "liveupdate", O_RDWR, RESOLVE_BENEATH));
	expect_opens("openat2 in root", openat2_(root, "/dev/liveupdate", O_RDWR, RESOLVE_IN_ROOT));
	must(chdir("/dev") == 0);
	expect_opens("open relative", open("liveupdate", O_RDWR));
	expect_opens("open relative with a dot", open("./liveupdate", O_RDWR));
	must(symlinkat(LUO_DEVICE, tmp, "link") == 0 && symlinkat("/dev", tmp, "devices") == 0);
	snprintf(link, sizeof link, "%s/link", dir_name);
	expect_opens("open through a symlink", open(link, O_RDWR));
	check("symlink", open(link, O_RDWR | O_NOFOLLOW), -ELOOP);
	snprintf(link, sizeof link, "%s/devices/liveupdate", dir_name);
	expect_opens("open through a symlink to /dev", open(link, O_RDWR));
	check("create", open(LUO_DEVICE, O_RDWR | O_CREAT | O_EXCL, 0600), -EEXIST);
	check("directory", open(LUO_DEVICE, O_RDONLY | O_DIRECTORY), -ENOTDIR);
	check("slash", open("/dev/liveupdate/", O_RDWR), -ENOTDIR);
	unlinkat(tmp, "link", 0);
	unlinkat(tmp, "devices", 0);
	rmdir(dir_name);
	must(fchdir(here) == 0);
	close(dev), close(root), close(tmp), close(here);
}

/* O_PATH does not open the device: neither busy nor usable. */
static void check_path_open(int device)
{
	struct luo_session arg = { .size = sizeof arg, .name = "x" };
	int path = open(LUO_DEVICE, O_PATH | O_CLOEXEC);
	struct stat st = { 0 };
	char link[64];

	check("O_PATH", path >= 0, 1);
	check("O_PATH", ioctl(path, LUO_CREATE, &arg), -EBADF);
	check("O_PATH", fstat(path, &st), 0);
	check("O_PATH", S_ISCHR(st.st_mode), 1);
	snprintf(link, sizeof link, "/proc/self/fd/%d", path);
	check("O_PATH", open(link, O_RDWR), -EBUSY);
	close(device);
	expect_opens("open through O_PATH", open(link, O_RDWR));
	close(path);
}

/* The device is free at last close of all copies, not before. */
static void check_exclusive(void)
{
	int fd = luo_open(), copy = dup(fd);
	pid_t child;

	check("exclusive", open(LUO_DEVICE, O_RDWR), -EBUSY);
	check("exclusive", open(LUO_DEVICE, O_RDONLY), -EBUSY);
	close(fd);
	check("exclusive", open(LUO_DEVICE, O_RDWR), -EBUSY);
	child = fork();
	must(child >= 0);
	if (child == 0) {
		for (;;)
			pause();
	}
	close(copy);
	check("exclusive", open(LUO_DEVICE, O_RDWR), -EBUSY);
	kill(child, SIGKILL);
	must(waitpid(child, NULL, 0) == child);
	expect_opens("after the last close", open(LUO_DEVICE, O_RDWR));
}

/* Another device is none of ours, even if one like it stands for ours. */
static void check_null(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct luo_session arg = { .size = sizeof arg, .name = "x" };

	check("null", null >= 0, 1);
	check("null", ioctl(null, LUO_CREATE, &arg), -ENOTTY);
	check("null", write(null, &arg, sizeof arg), sizeof arg);
	check("null", close(null), 0);
}

int main(int argc, char **argv)
{
	int device = luo_open();

	borrowed = luo_has(argc, argv, "-b");

	check_device(device);
	check_session(device, "fdkinds");
	check_session(device, "with space:and/slash");
	check_null();
	check_device_stat(LUO_DEVICE);
	check_path_open(device);
	check_opens();
	check_exclusive();
	if (wrong)
		fail("%d of %d checks differ", wrong, checks);
	pass();
}
