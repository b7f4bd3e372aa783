/*
 * posted_v2 [1|2|3]: a client of the second posted design: numbers with size and direction, a structure with an int at its
 * begin, tokens of all opens in one space, a command for each event.
 *
 * Stage 1: what is refused and with which errno, what a close takes along, a file that changes until PREPARE and not after
 * it; then it jumps. Stage 2: files are given back, once; a reply that cannot be written leaves its descriptor; after FINISH
 * the file is registered again, and the next jump. Stage 3: it is there still.
 */
#include "posted.h"

const char *const test_name = "posted_v2";

struct liveupdate_fd {
	int fd;
	uint32_t flags;
	uint64_t token;
};
_Static_assert(sizeof(struct liveupdate_fd) == 16 && offsetof(struct liveupdate_fd, token) == 8, "fd");

#define FD_PRESERVE _IOW(0xBA, 0, struct liveupdate_fd)
#define FD_UNPRESERVE _IOW(0xBA, 1, uint64_t)
#define FD_RESTORE _IOWR(0xBA, 2, struct liveupdate_fd)
#define GET_STATE _IOR(0xBA, 3, uint32_t)
#define DO_PREPARE _IO(0xBA, 4)
#define DO_CANCEL _IO(0xBA, 6)
#define DO_FINISH _IO(0xBA, 7)
_Static_assert(FD_PRESERVE == 0x4010BA00 && FD_UNPRESERVE == 0x4008BA01 && FD_RESTORE == 0xC010BA02, "numbers");
_Static_assert(GET_STATE == 0x8004BA03 && DO_PREPARE == 0xBA04 && DO_CANCEL == 0xBA06 && DO_FINISH == 0xBA07, "numbers");

static int preserve(int device, int fd, uint64_t token)
{
	struct liveupdate_fd arg = { fd, 0, token };

	return ioctl(device, FD_PRESERVE, &arg);
}

static int unpreserve(int device, uint64_t token)
{
	return ioctl(device, FD_UNPRESERVE, &token);
}

static int restore(int device, uint64_t token)
{
	struct liveupdate_fd arg = { -1, 0, token };

	if (ioctl(device, FD_RESTORE, &arg) < 0)
		return -1;
	must(arg.flags == 0 && arg.token == token);
	return arg.fd;
}

static void check_state(int device, uint32_t wanted, const char *text)
{
	uint32_t state[2] = { 99, 99 };

	must(ioctl(device, GET_STATE, &state) == 0);
	if (state[0] != wanted)
		fail("the state is %u, want %u", state[0], wanted);
	must(state[1] == 99);
	check_sysfs(text);
}

static void refusals(int device, int memory)
{
	int pipes[2];
	uint64_t word = 0;

	must(pipe(pipes) == 0);
	must_fail(open(LUO_DEVICE, O_RDWR | O_EXCL), EINVAL);
	must_fail(ioctl(device, 0xBA00, &word), ENOTTY);
	must_fail(ioctl(device, 0xBA05, &word), ENOTTY);
	must_fail(ioctl(device, GET_STATE, NULL), EFAULT);
	must_fail(ioctl(device, DO_FINISH), EINVAL);
	must_fail(ioctl(device, DO_CANCEL), ENOENT);
	must_fail(restore(device, TOKEN), EBUSY);
	must_fail(preserve(device, 1000, TOKEN), EBADF);
	must_fail(preserve(device, pipes[0], TOKEN), ENOENT);
	must_fail(unpreserve(device, TOKEN), ENOENT);
	must_fail(ioctl(device, FD_PRESERVE, NULL), EFAULT);
	struct liveupdate_fd arg = { memory, 7, TOKEN };
	void *page = read_only(&arg, sizeof arg);
	must_fail(ioctl(device, FD_PRESERVE, page), EFAULT);
	/* It was undone, and flags are looked at by nobody. */
	must(ioctl(device, FD_PRESERVE, &arg) == 0);
	must_fail(preserve(device, memory, TOKEN), EEXIST);
}

static void several_opens(int device, int memory)
{
	int second = luo_open(), third = luo_open();

	must(preserve(second, memory, OTHER) == 0);
	must_fail(preserve(third, memory, OTHER), EEXIST);
	must_fail(unpreserve(device, OTHER), ENOENT);
	must_fail(unpreserve(third, TOKEN), ENOENT);
	close(second);
	/* Its tokens are gone with it. */
	must(preserve(third, memory, OTHER) == 0);
	must(unpreserve(third, OTHER) == 0);
	close(third);
}

static void first(void)
{
	int device = luo_open(), memory = luo_memfd(TEXT, 4096), other = luo_memfd("the other", 4096);

	check_state(device, NORMAL, "normal\n");
	refusals(device, memory);
	several_opens(device, other);
	grow_file(memory);
	must(preserve(device, other, OTHER) == 0);
	must(ioctl(device, DO_PREPARE) == 0);
	check_state(device, PREPARED, "prepared\n");
	must_fail(ioctl(device, DO_PREPARE), EINVAL);
	must_fail(preserve(device, other, 0x30), EBUSY);
	must_fail(unpreserve(device, OTHER), EBUSY);
	must_fail(ftruncate(memory, 1), EPERM);
	must(ioctl(device, DO_CANCEL) == 0);
	check_state(device, NORMAL, "normal\n");
	must(ftruncate(memory, 4096) == 0);
	grow_file(memory);
	must(ioctl(device, DO_PREPARE) == 0);
	must_fail(ftruncate(memory, 1), EPERM);
	jump();
}

static void second(void)
{
	int device = luo_open(), memory, leaked = next_fd();
	struct liveupdate_fd arg = { -1, 0, OTHER };

	check_state(device, UPDATED, "updated\n");
	must_fail(ioctl(device, DO_PREPARE), EINVAL);
	must_fail(restore(device, 0x30), ENOENT);
	must_fail(fcntl(leaked, F_GETFD), EBADF);
	must_fail(ioctl(device, FD_RESTORE, read_only(&arg, sizeof arg)), EFAULT);
	/* The descriptor was installed before the reply, and stays. */
	luo_check_text(leaked, "the other", 0);
	must_fail(restore(device, OTHER), EINVAL);
	memory = restore(device, TOKEN);
	must(memory == leaked + 1);
	check_file(memory);
	must_fail(restore(device, TOKEN), EINVAL);
	must(ioctl(device, DO_FINISH) == 0);
	check_state(device, NORMAL, "normal\n");
	must_fail(restore(device, TOKEN), EBUSY);
	check_file(memory);
	must(preserve(device, memory, TOKEN) == 0);
	must(ioctl(device, DO_PREPARE) == 0);
	jump();
}

static void third(void)
{
	int device = luo_open();

	check_state(device, UPDATED, "updated\n");
	check_file(restore(device, TOKEN));
	must_fail(restore(device, OTHER), ENOENT);
	must(ioctl(device, DO_FINISH) == 0);
}

int main(int argc, char **argv)
{
	int stage = luo_stage(argc, argv);

	if (stage == 1)
		first();
	if (stage == 2)
		second();
	third();
	pass();
}
