/*
 * posted_v4 [1|2|3]: a client of the fourth posted design: named sessions with descriptors and a state of their own, one
 * opener, two kinds of commands.
 *
 * Stage 1: what is refused on the device and on sessions, names that are cut, sessions that go with their last close; then
 * it jumps. Stage 2: a session and its file are taken once; after FINISH it goes on as a session of this kernel, and the next
 * jump. Stage 3: it is there still.
 */
#include "posted.h"

const char *const test_name = "posted_v4";

struct word {
	uint32_t size;
	uint32_t value;
};
struct create {
	uint32_t size;
	int32_t fd;
	char name[56];
};
struct retrieve {
	uint32_t size;
	int32_t fd;
	char name[64];
};
struct file {
	uint32_t size;
	int32_t fd;
	uint64_t token;
};
struct session_state {
	uint32_t size;
	uint8_t incoming, reserved[3];
	uint32_t state;
};
_Static_assert(sizeof(struct create) == 64 && sizeof(struct retrieve) == 72 && sizeof(struct session_state) == 12, "sizes");

enum { GET_STATE = 0xBA00, SET_EVENT, CREATE, RETRIEVE };
enum { PRESERVE = 0xBA40, UNPRESERVE, RESTORE, SESSION_GET_STATE, SESSION_SET_EVENT };

static int create(int device, const char *name)
{
	struct create arg = { sizeof arg, -1, "" };

	memcpy(arg.name, name, strnlen(name, sizeof arg.name));
	return ioctl(device, CREATE, &arg) < 0 ? -1 : arg.fd;
}

static int take(int device, const char *name)
{
	struct retrieve arg = { sizeof arg, -1, "" };

	memcpy(arg.name, name, strnlen(name, sizeof arg.name));
	return ioctl(device, RETRIEVE, &arg) < 0 ? -1 : arg.fd;
}

static int set_event(int fd, unsigned long command, uint32_t event)
{
	struct word arg = { sizeof arg, event };

	return ioctl(fd, command, &arg);
}

static int preserve(int session, int fd, uint64_t token)
{
	struct file arg = { sizeof arg, fd, token };

	return ioctl(session, PRESERVE, &arg);
}

static int unpreserve(int session, uint64_t token, int reserved)
{
	struct file arg = { sizeof arg, reserved, token };

	return ioctl(session, UNPRESERVE, &arg);
}

static int restore(int session, uint64_t token)
{
	struct file arg = { sizeof arg, -1, token };

	return ioctl(session, RESTORE, &arg) < 0 ? -1 : arg.fd;
}

static void check_state(int device, uint32_t wanted)
{
	struct word arg = { sizeof arg, 99 };

	must(ioctl(device, GET_STATE, &arg) == 0);
	if (arg.value != wanted)
		fail("the state is %u, want %u", arg.value, wanted);
	check_sysfs(NULL);
}

static int session_state(int session)
{
	struct session_state arg = { sizeof arg, 1, { 0 }, 99 };

	return ioctl(session, SESSION_GET_STATE, &arg) < 0 ? -1 : (int)arg.state;
}

static void refusals(int device, int session, int memory)
{
	struct session_state reserved = { sizeof reserved, 0, { 0, 1, 0 }, 99 };

	must_fail(luo_open_now(), EBUSY);
	must_fail(ioctl(device, PRESERVE, &reserved), EINVAL);
	must_fail(ioctl(session, CREATE, &reserved), EINVAL);
	must_fail(set_event(device, SET_EVENT, FREEZE), EOPNOTSUPP);
	must_fail(set_event(session, SESSION_SET_EVENT, 17), EINVAL);
	must_fail(ioctl(session, SESSION_GET_STATE, &reserved), EOPNOTSUPP);
	must_fail(take(device, "vm"), EAGAIN);
	must_fail(create(device, "vm"), EEXIST);
	must_fail(restore(session, TOKEN), EBUSY);
	must_fail(preserve(session, 1000, TOKEN), EBADF);
	must(preserve(session, memory, TOKEN) == 0);
	must_fail(preserve(session, memory, TOKEN), EEXIST);
	must_fail(unpreserve(session, TOKEN, 1), EOPNOTSUPP);
	must_fail(unpreserve(session, OTHER, 0), ENOENT);
}

/* 60 bytes, cut at 55: the second is the first. */
static void long_names(int device)
{
	char name[64], link[128] = { 0 }, path[64];
	int one, two;

	memset(name, 'n', 60);
	name[60] = 0;
	one = create(device, name);
	must(one >= 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", one);
	must(readlink(path, link, sizeof link - 1) == 25 + 55);
	name[55] = 0;
	must_fail(create(device, name), EEXIST);
	close(one);
	two = create(device, name);
	must(two >= 0);
	close(two);
}

static void first(void)
{
	int device = luo_open(), memory = luo_memfd(TEXT, 4096), session, gone;

	check_state(device, NORMAL);
	session = create(device, "vm");
	must(session >= 0 && fcntl(session, F_GETFD) == FD_CLOEXEC);
	must(session_state(session) == NORMAL);
	refusals(device, session, memory);
	long_names(device);
	gone = create(device, "gone");
	must(preserve(gone, memory, TOKEN) == 0);
	must(set_event(gone, SESSION_SET_EVENT, PREPARE) == 0);
	must(session_state(gone) == PREPARED);
	must_fail(preserve(gone, memory, OTHER), EBUSY);
	must_fail(set_event(gone, SESSION_SET_EVENT, PREPARE), EBUSY);
	must_fail(ftruncate(memory, 1), EPERM);
	close(gone);
	grow_file(memory);
	must(set_event(device, SET_EVENT, PREPARE) == 0);
	check_state(device, PREPARED);
	must(session_state(session) == PREPARED);
	must_fail(create(device, "late"), EAGAIN);
	must_fail(unpreserve(session, TOKEN, 0), EBUSY);
	must(set_event(device, SET_EVENT, CANCEL) == 0);
	must(session_state(session) == NORMAL);
	must(set_event(device, SET_EVENT, PREPARE) == 0);
	/* Sessions outlive the open of the device. */
	close(device);
	must(session_state(session) == PREPARED);
	jump();
}

static void second(void)
{
	int device = luo_open(), session, memory;

	check_state(device, UPDATED);
	must_fail(take(device, "gone"), ENOENT);
	session = take(device, "vm");
	must(session >= 0 && session_state(session) == UPDATED);
	must_fail(take(device, "vm"), EADDRINUSE);
	must_fail(preserve(session, session, OTHER), EBUSY);
	memory = restore(session, TOKEN);
	check_file(memory);
	must_fail(restore(session, TOKEN), EADDRINUSE);
	must_fail(restore(session, OTHER), ENOENT);
	must(set_event(device, SET_EVENT, FINISH) == 0);
	check_state(device, NORMAL);
	must(session_state(session) == NORMAL);
	check_file(memory);
	/* The session has its file still, and takes part. */
	must(set_event(device, SET_EVENT, PREPARE) == 0);
	jump();
}

static void third(void)
{
	int device = luo_open(), session = take(device, "vm");

	must(session >= 0);
	check_file(restore(session, TOKEN));
	must(set_event(session, SESSION_SET_EVENT, FINISH) == 0);
	must(session_state(session) == NORMAL);
	must(set_event(device, SET_EVENT, FINISH) == 0);
	check_state(device, NORMAL);
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
