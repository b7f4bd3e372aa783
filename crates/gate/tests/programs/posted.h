/*
 * Common part of the programs for the designs that were posted and never merged: states, events, and what the three
 * have in common. Each program has its own definitions of the interface, with the numbers written out once more.
 */
#ifndef POSTED_H
#define POSTED_H

#include "luo.h"

#include <linux/ioctl.h>

enum { UNDEFINED, NORMAL, PREPARED, FROZEN, UPDATED };
enum { PREPARE, FREEZE, FINISH, CANCEL };

#define TOKEN 0x10
#define OTHER 0x20
#define TEXT "over the kexec"
#define SIZE 12288
#define POSITION 5

/* What /sys/kernel/liveupdate/state says; NULL: there is no such file. */
static inline void check_sysfs(const char *wanted)
{
	char text[32] = { 0 };
	int fd = open("/sys/kernel/liveupdate/state", O_RDONLY | O_CLOEXEC);

	if (!wanted) {
		must(fd < 0 && errno == ENOENT);
		return;
	}
	must(fd >= 0);
	must(read(fd, text, sizeof text - 1) > 0);
	close(fd);
	if (strcmp(text, wanted))
		fail("the state is \"%s\", want \"%s\"", text, wanted);
}

/* A page that holds the argument and cannot be written. */
static inline void *read_only(const void *arg, size_t size)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(page != MAP_FAILED);
	memcpy(page, arg, size);
	must(mprotect(page, 4096, PROT_READ) == 0);
	return page;
}

/* The number that the next descriptor gets. */
static inline int next_fd(void)
{
	int fd = fcntl(0, F_DUPFD, 0);

	must(fd >= 0);
	close(fd);
	return fd;
}

/* The file of the first stage, as it must be after any number of jumps. */
static inline void check_file(int fd)
{
	struct stat st;

	must(fstat(fd, &st) == 0);
	if (st.st_size != SIZE)
		fail("the file has %lld bytes, want %d", (long long)st.st_size, SIZE);
	must(fcntl(fd, F_GETFD) == FD_CLOEXEC);
	must(lseek(fd, 0, SEEK_CUR) == POSITION);
	luo_check_text(fd, TEXT, 0);
	luo_check_text(fd, "the end", SIZE - 16);
}

/* Grown and written after it was registered: what it is at PREPARE is what crosses. */
static inline void grow_file(int fd)
{
	must(ftruncate(fd, SIZE) == 0);
	must(pwrite(fd, "the end", 7, SIZE - 16) == 7);
	must(lseek(fd, POSITION, SEEK_SET) == POSITION);
}

__attribute__((noreturn)) static inline void jump(void)
{
	must(luo_load_image("kho=on liveupdate=on luo_test=1") == 0);
	luo_kexec();
	fail("reboot(KEXEC) returned, errno %d", errno);
}

#endif
