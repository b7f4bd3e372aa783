/*
 * posted_v3 [1|2|3]: a client of the third posted design: the size first, one opener, SET_EVENT, a state for each file, and
 * the defects that its review found.
 *
 * Stage 1: what is refused, in the order of the checks; a file that goes ahead alone; then it jumps. Stage 2: files are given
 * back and finished; after FINISH the file is registered again, and the next jump. Stage 3: it is there still. With -f the
 * stages expect FD_PRESERVE to tell its errors (without its quirk).
 */
#include "posted.h"

const char *const test_name = "posted_v3";

struct fd {
	uint32_t size;
	int32_t fd;
	uint64_t token;
};
struct word {
	uint32_t size;
	uint32_t value;
};
struct fd_state {
	uint32_t size;
	uint8_t incoming;
	uint64_t token __attribute__((aligned(8)));
	uint32_t state;
};
struct fd_event {
	uint32_t size;
	uint32_t event;
	uint64_t token;
};
_Static_assert(sizeof(struct fd) == 16 && sizeof(struct word) == 8 && sizeof(struct fd_event) == 16, "sizes");
_Static_assert(sizeof(struct fd_state) == 24 && offsetof(struct fd_state, state) == 16, "state");

enum { FD_PRESERVE = 0xBA00, FD_UNPRESERVE, FD_RESTORE, GET_STATE, SET_EVENT, GET_FD_STATE, SET_FD_EVENT };

static int errors_told;

static int preserve(int device, int fd, uint64_t token)
{
	struct fd arg = { sizeof arg, fd, token };

	return ioctl(device, FD_PRESERVE, &arg);
}

static int unpreserve(int device, uint64_t token)
{
	struct fd arg = { sizeof arg, -1, token };

	return ioctl(device, FD_UNPRESERVE, &arg);
}

static int restore(int device, uint64_t token)
{
	struct fd arg = { sizeof arg, -1, token };

	return ioctl(device, FD_RESTORE, &arg) < 0 ? -1 : arg.fd;
}

static int set_event(int device, uint32_t event)
{
	struct word arg = { sizeof arg, event };

	return ioctl(device, SET_EVENT, &arg);
}

static int set_fd_event(int device, uint64_t token, uint32_t event)
{
	struct fd_event arg = { sizeof arg, event, token };

	return ioctl(device, SET_FD_EVENT, &arg);
}

static int fd_state(int device, uint64_t token, int incoming)
{
	struct fd_state arg = { sizeof arg, (uint8_t)incoming, token, 99 };

	return ioctl(device, GET_FD_STATE, &arg) < 0 ? -1 : (int)arg.state;
}

static void check_state(int device, uint32_t wanted, const char *text)
{
	struct word arg = { sizeof arg, 99 };

	must(ioctl(device, GET_STATE, &arg) == 0);
	if (arg.value != wanted)
		fail("the state is %u, want %u", arg.value, wanted);
	check_sysfs(text);
}

/* An error of FD_PRESERVE: its success test is inverted. */
#define preserve_fails(call, number)            \
	do {                                    \
		if (errors_told)                \
			must_fail(call, number); \
		else                            \
			must((call) == 0);      \
	} while (0)

static void refusals(int device)
{
	struct fd arg = { 15, 0, TOKEN };
	struct { struct word word; uint32_t tail[2]; } longer = { { sizeof longer, 0 }, { 0, 1 } };

	must_fail(luo_open_now(), EBUSY);
	must_fail(ioctl(device, 0xBA07, NULL), EINVAL);
	must_fail(ioctl(device, 0xCA00, NULL), EFAULT);
	must_fail(ioctl(device, 0xCA00, &arg), ENOTTY);
	must_fail(ioctl(device, 0x4010BA00, &arg), ENOTTY);
	must_fail(ioctl(device, FD_PRESERVE, &arg), EINVAL);
	must_fail(ioctl(device, GET_STATE, &longer), E2BIG);
	longer.tail[1] = 0;
	must(ioctl(device, GET_STATE, &longer) == 0 && longer.word.value == NORMAL);
	must_fail(set_event(device, FREEZE), EINVAL);
	must_fail(set_event(device, 17), EINVAL);
	must_fail(set_event(device, FINISH), EINVAL);
	must_fail(restore(device, TOKEN), EBUSY);
	must_fail(fd_state(device, TOKEN, 0), ENOENT);
	must_fail(set_fd_event(device, TOKEN, PREPARE), ENOENT);
	must_fail(set_fd_event(device, TOKEN, FINISH), EBUSY);
	preserve_fails(preserve(device, 1000, TOKEN), EBADF);
	must_fail(unpreserve(device, TOKEN), ENOENT);
}

static void one_file_alone(int device, int memory)
{
	struct fd_state least = { 16, 0, TOKEN, 99 };

	must(fd_state(device, TOKEN, 0) == NORMAL);
	must(set_fd_event(device, TOKEN, FREEZE) == 0);
	must(fd_state(device, TOKEN, 0) == NORMAL);
	must(set_fd_event(device, TOKEN, PREPARE) == 0);
	must(fd_state(device, TOKEN, 0) == PREPARED);
	check_state(device, NORMAL, "normal\n");
	must_fail(ftruncate(memory, 1), EPERM);
	/* The state has no room in the least structure that is taken. */
	must(ioctl(device, GET_FD_STATE, &least) == 0 && least.state == 99);
	must(set_fd_event(device, TOKEN, CANCEL) == 0);
	must(fd_state(device, TOKEN, 0) == NORMAL);
	must(ftruncate(memory, 4096) == 0);
}

static void first(void)
{
	int device = luo_open(), memory = luo_memfd(TEXT, 4096), other = luo_memfd("the other", 4096);

	check_state(device, NORMAL, "normal\n");
	refusals(device);
	must(preserve(device, memory, TOKEN) == 0);
	preserve_fails(preserve(device, other, TOKEN), EEXIST);
	one_file_alone(device, memory);
	must(preserve(device, other, OTHER) == 0);
	/* A close forgets everything; the device is free again. */
	close(device);
	device = luo_open();
	must_fail(unpreserve(device, TOKEN), ENOENT);
	must(preserve(device, memory, TOKEN) == 0);
	must(preserve(device, other, OTHER) == 0);
	grow_file(memory);
	must(set_event(device, PREPARE) == 0);
	check_state(device, PREPARED, "prepared\n");
	must_fail(set_event(device, PREPARE), EINVAL);
	must_fail(unpreserve(device, OTHER), EBUSY);
	must(set_event(device, CANCEL) == 0);
	check_state(device, NORMAL, "normal\n");
	must(set_event(device, PREPARE) == 0);
	jump();
}

static void second(void)
{
	struct { struct fd fd; uint32_t tail[4]; } longer = { { sizeof longer, -1, OTHER }, { 0 } };
	int device = luo_open(), memory, given = next_fd();

	check_state(device, UPDATED, "updated\n");
	must_fail(fd_state(device, TOKEN, 1), ENOENT);
	must_fail(restore(device, 0x30), ENOENT);
	/* A structure of a newer program. */
	must(ioctl(device, FD_RESTORE, &longer) == 0 && longer.fd.fd == given && longer.tail[3] == 0);
	luo_check_text(given, "the other", 0);
	must(fd_state(device, TOKEN, 1) == UPDATED);
	memory = restore(device, TOKEN);
	check_file(memory);
	must_fail(restore(device, TOKEN), EINVAL);
	must(set_fd_event(device, OTHER, FINISH) == 0);
	must(fd_state(device, OTHER, 1) == NORMAL);
	must(set_event(device, FINISH) == 0);
	check_state(device, NORMAL, "normal\n");
	check_file(memory);
	must(preserve(device, memory, TOKEN) == 0);
	must(set_event(device, PREPARE) == 0);
	jump();
}

static void third(void)
{
	int device = luo_open();

	check_state(device, UPDATED, "updated\n");
	check_file(restore(device, TOKEN));
	must(set_event(device, FINISH) == 0);
}

int main(int argc, char **argv)
{
	int stage = luo_stage(argc, argv);

	errors_told = luo_has(argc, argv, "-f");
	if (stage == 1)
		first();
	if (stage == 2)
		second();
	third();
	pass();
}
