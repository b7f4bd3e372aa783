/*
 * hostile: arguments and descriptors that are wrong, or change during the call.
 *
 * No stages. Bad pointers, structures that cross into unmapped memory, read-only answers (CREATE undoes, PRESERVE
 * stays done), sizes and tails, a descriptor that another thread closes and replaces during calls, memory that
 * another thread rewrites and unmaps during calls, a full descriptor table. Each answer is a kernel's.
 */
#include "luo.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

const char *const test_name = "hostile";

static int device;
static atomic_int stop;

/* Two pages, the second unmapped: returns the end of the first. */
static char *edge(void)
{
	char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(map != MAP_FAILED);
	must(munmap(map + 4096, 4096) == 0);
	return map + 4096;
}

static void bad_pointers(int session)
{
	static const unsigned long commands[] = { LUO_PRESERVE, LUO_RETRIEVE, LUO_FINISH };
	void *const kernel = (void *)0xffffffff81000000UL, *const odd = (void *)8UL;

	must_fail(ioctl(device, LUO_CREATE, NULL), EFAULT);
	must_fail(ioctl(device, LUO_CREATE, odd), EFAULT);
	must_fail(ioctl(device, LUO_TAKE, kernel), EFAULT);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
		must_fail(ioctl(session, commands[i], NULL), EFAULT);
		must_fail(ioctl(session, commands[i], kernel), EFAULT);
	}
	/* An unknown number is refused before the pointer is read, a wrong type after the size. */
	must_fail(ioctl(session, 0xBA60, NULL), EINVAL);
	must_fail(ioctl(session, 0xBB40, NULL), EFAULT);
	must_fail(ioctl(-1, LUO_CREATE, NULL), EBADF);
	must_fail(ioctl(9999, LUO_CREATE, NULL), EBADF);
}

static void crossing(int session)
{
	char *end = edge();
	struct luo_session create = { .size = sizeof create, .name = "crossing" };
	uint32_t size = 72;

	/* Only the size is there. */
	memcpy(end - 4, &size, 4);
	must_fail(ioctl(device, LUO_CREATE, end - 4), EFAULT);
	memcpy(end - 40, &create, 40);
	must_fail(ioctl(device, LUO_CREATE, end - 40), EFAULT);
	/* Not even the size. */
	must_fail(ioctl(device, LUO_CREATE, end - 2), EFAULT);
	/* Exactly to the edge is right; not aligned too. */
	memcpy(end - 72, &create, 72);
	must(ioctl(device, LUO_CREATE, end - 72) == 0);
	memcpy(&create, end - 72, 72);
	close(create.fd);
	memcpy(end - 73, &create, 72);
	must(ioctl(device, LUO_CREATE, end - 73) == 0);
	memcpy(&create, end - 73, 72);
	close(create.fd);
	/* A tail that is not there. */
	size = 96;
	memcpy(end - 80, &create, 72);
	memcpy(end - 80, &size, 4);
	memset(end - 8, 0, 8);
	must_fail(ioctl(device, LUO_CREATE, end - 80), EFAULT);
	end[-8] = 1;
	must_fail(ioctl(device, LUO_CREATE, end - 80), E2BIG);
	size = 8;
	memcpy(end - 8, &size, 4);
	must_fail(ioctl(session, LUO_PRESERVE, end - 8), EINVAL);
}

static void sizes(void)
{
	struct {
		struct luo_session arg;
		char tail[184];
	} big = { .arg = { .name = "sizes" } };
	static const uint32_t small[] = { 0, 1, 8, 71 };

	for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
		big.arg.size = small[i];
		must_fail(ioctl(device, LUO_CREATE, &big), EINVAL);
	}
	big.arg.size = sizeof big;
	must(ioctl(device, LUO_CREATE, &big) == 0);
	close(big.arg.fd);
	big.tail[183] = 1;
	must_fail(ioctl(device, LUO_CREATE, &big), E2BIG);
	big.arg.size = 0xffffffff;
	must_fail(ioctl(device, LUO_CREATE, &big), E2BIG);
}

static void read_only(int session)
{
	struct luo_session create = { .size = sizeof create, .fd = -1, .name = "read-only" };
	struct luo_file preserve = { .size = sizeof preserve, .token = 77 };
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int memory = luo_memfd("x", 4096), fd, next;

	must(page != MAP_FAILED);
	preserve.fd = memory;
	memcpy(page, &create, sizeof create);
	memcpy(page + 128, &preserve, sizeof preserve);
	must(mprotect(page, 4096, PROT_READ) == 0);
	next = dup(0);
	must(close(next) == 0);
	must_fail(ioctl(device, LUO_CREATE, page), EFAULT);
	/* Undone: no descriptor left, the name is free. */
	fd = dup(0);
	must(fd == next);
	close(fd);
	fd = luo_create(device, "read-only");
	must(fd >= 0);
	close(fd);
	/* Done all the same. */
	must_fail(ioctl(session, LUO_PRESERVE, page + 128), EFAULT);
	must_fail(luo_preserve(session, memory, 77), EEXIST);
	close(memory);
	munmap(page, 4096);
}

static void *closer(void *arg)
{
	int fd = *(int *)arg;

	while (!atomic_load(&stop)) {
		int memory = memfd_create("racer", MFD_CLOEXEC);

		/* The number is now a memfd, now nothing, now a session. */
		dup2(memory, fd);
		close(memory);
		close(fd);
		memory = luo_create(device, "racer");
		if (memory >= 0) {
			dup2(memory, fd);
			close(memory);
		}
		sched_yield();
		close(fd);
	}
	return NULL;
}

static void closed_in_between(int session)
{
	int number = 500;
	pthread_t thread;

	atomic_store(&stop, 0);
	must(pthread_create(&thread, NULL, closer, &number) == 0);
	for (int i = 0; i < 3000; i++) {
		struct luo_file arg = { sizeof arg, -1, 1 };
		int r = ioctl(number, LUO_PRESERVE, &arg), e = errno;

		/* A session with a bad fd, no descriptor, a memfd. */
		if (r != -1 || (e != EBADF && e != ENOTTY))
			fail("call on a closing descriptor gave %d, errno %d", r, e);
		r = luo_preserve(session, number, 1000 + (uint64_t)i);
		e = errno;
		/* EBUSY: it is still the memfd of the round before. */
		if (r == -1 && e != EBADF && e != ENOENT && e != ENOSPC && e != EBUSY)
			fail("preserve of a closing descriptor: errno %d", e);
	}
	atomic_store(&stop, 1);
	must(pthread_join(thread, NULL) == 0);
}

static struct luo_session *volatile shared;

static void *scribbler(void *arg)
{
	unsigned n = 0;

	(void)arg;
	while (!atomic_load(&stop)) {
		shared->size = n % 3 ? 72 : 7;
		shared->name[0] = (char)('a' + n % 20);
		if (n++ % 64 == 0) {
			mprotect(shared, 4096, PROT_READ);
			sched_yield();
			mprotect(shared, 4096, PROT_READ | PROT_WRITE);
		}
	}
	return NULL;
}

static void rewritten_in_between(void)
{
	pthread_t thread;
	char name[64] = { 0 };

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(shared != MAP_FAILED);
	atomic_store(&stop, 0);
	shared->size = 72;
	must(pthread_create(&thread, NULL, scribbler, NULL) == 0);
	for (int i = 0; i < 3000; i++) {
		int r = ioctl(device, LUO_CREATE, shared), e = errno;

		if (r == 0)
			close(shared->fd);
		else if (e != EINVAL && e != EFAULT)
			fail("create from changing memory: errno %d", e);
	}
	atomic_store(&stop, 1);
	must(pthread_join(thread, NULL) == 0);
	munmap(shared, 4096);
	/* Nothing stayed behind. */
	for (name[0] = 'a'; name[0] < 'a' + 20; name[0]++) {
		int fd = luo_create(device, name);

		if (fd < 0)
			fail("name %s still taken: errno %d", name, errno);
		close(fd);
	}
}

static void full_table(void)
{
	struct rlimit old, low;
	int last = -1, fd, n = 0, fds[64];

	must(getrlimit(RLIMIT_NOFILE, &old) == 0);
	low = old;
	low.rlim_cur = 32;
	must(setrlimit(RLIMIT_NOFILE, &low) == 0);
	while (n < 64 && (fd = dup(0)) >= 0)
		fds[n++] = last = fd;
	must(last >= 0 && errno == EMFILE);
	must_fail(luo_create(device, "full"), EMFILE);
	must_fail(luo_create(device, ""), EMFILE);
	must_fail(luo_take(device, "no such session"), EMFILE);
	must_fail(luo_open_now(), EMFILE);
	close(last);
	fd = luo_create(device, "full"); /* the EMFILE one did not stay */
	must(fd == last);
	while (n > 0)
		close(fds[--n]);
	must(setrlimit(RLIMIT_NOFILE, &old) == 0);
}

int main(void)
{
	int session, again;

	device = luo_open();
	session = luo_create(device, "hostile");
	must(session >= 0);
	bad_pointers(session);
	crossing(session);
	sizes();
	read_only(session);
	full_table();
	rewritten_in_between();
	closed_in_between(session);
	/* The device and the session still answer as ever. */
	must_fail(luo_create(device, "hostile"), EEXIST);
	close(session);
	again = luo_create(device, "hostile");
	must(again >= 0);
	pass();
}
