/*
 * agent [1|2] [-k]: the only owner of the device passes sessions to a forked VMM by SCM_RIGHTS.
 *
 * Stage 1: the agent makes two sessions, sends "vm-0" to the VMM and keeps only "agent-state" for itself; the VMM
 * preserves sparse guest RAM, writes in place after that, and becomes the custodian of its session; a daemonised
 * custodian holds the other one. Stage 2: both come back, to a VMM that gets its session passed again.
 */
#include "luo.h"

const char *const test_name = "agent";

#define RAM_BYTES (64L << 20)
#define RAM_TOKEN 0x1000
#define STATE_TOKEN UINT64_MAX

static void vmm_first(int socket)
{
	int session = luo_recv_fd(socket), ram, late;
	char *map;

	must(session >= 0);
	must(fcntl(session, F_GETFD) & FD_CLOEXEC);
	ram = luo_memfd("", RAM_BYTES);
	map = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, ram, 0);
	must(map != MAP_FAILED);
	strcpy(map, "guest at 0");
	must(luo_preserve(session, ram, RAM_TOKEN) == 0);
	strcpy(map + RAM_BYTES / 2, "written after preserve");
	must_fail(luo_preserve(session, ram, RAM_TOKEN), EEXIST);
	must_fail(luo_preserve(session, -1, RAM_TOKEN + 1), EBADF);
	must_fail(ftruncate(ram, RAM_BYTES * 2), EPERM);
	must(ftruncate(ram, RAM_BYTES) == 0);
	close(ram);
	late = open("/dev/null", O_RDWR | O_CLOEXEC);
	must_fail(luo_preserve(session, late, 7), ENOENT);
	close(late);
	luo_custodian();
	must(write(socket, "r", 1) == 1);
	_exit(0);
}

static void vmm_second(int socket)
{
	int session = luo_recv_fd(socket), ram;
	char *map;

	must(session >= 0);
	ram = luo_retrieve(session, RAM_TOKEN);
	must(ram >= 0);
	must(fcntl(ram, F_GETFD) & FD_CLOEXEC);
	map = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, ram, 0);
	must(map != MAP_FAILED);
	must(!strcmp(map, "guest at 0"));
	must(!strcmp(map + RAM_BYTES / 2, "written after preserve"));
	must(map[RAM_BYTES / 4] == 0);
	map[RAM_BYTES / 4] = 1;
	must(luo_finish(session) == 0);
	must(luo_finish(session) == 0);
	must_fail(luo_retrieve(session, RAM_TOKEN), ENOENT);
	must(write(socket, "r", 1) == 1);
	_exit(0);
}

/* Passes the session on and waits for the VMM's word and end. */
static void run_vmm(int session, int device, void (*vmm)(int))
{
	int pair[2];
	char ready;
	pid_t child;

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	child = fork();
	must(child >= 0);
	if (child == 0) {
		close(pair[0]);
		close(session);
		close(device);
		vmm(pair[1]);
	}
	close(pair[1]);
	must(luo_send_fd(pair[0], session) == 0);
	close(session);
	if (read(pair[0], &ready, 1) != 1)
		_exit(1); /* the VMM has said why */
	luo_wait(child);
	close(pair[0]);
}

static void first(void)
{
	int device = luo_open(), state, vm, page;

	must_fail(luo_open_now(), EBUSY);
	vm = luo_create(device, "vm-0");
	must(vm >= 0);
	/* No copy of the VMM's session may stay here: its holder is the VMM. */
	run_vmm(vm, device, vmm_first);
	must_fail(luo_create(device, "vm-0"), EEXIST);
	state = luo_create(device, "agent-state");
	must(state >= 0);
	page = luo_memfd("1 vm", 4096);
	must(luo_preserve(state, page, STATE_TOKEN) == 0);
	close(page);
	close(device);
	luo_custodian();
}

static void second(void)
{
	int device = luo_open(), state, vm, page;

	state = luo_take(device, "agent-state");
	must(state >= 0);
	must_fail(luo_take(device, "agent-state"), EINVAL);
	page = luo_retrieve(state, STATE_TOKEN);
	must(page >= 0);
	luo_check_text(page, "1 vm", 0);
	vm = luo_take(device, "vm-0");
	must(vm >= 0);
	run_vmm(vm, device, vmm_second);
	/* The VMM held the last copy: closed and finished. */
	must_fail(luo_take(device, "vm-0"), ENOENT);
	must(luo_finish(state) == 0);
	luo_check_text(page, "1 vm", 0);
}

int main(int argc, char **argv)
{
	if (luo_stage(argc, argv) == 1) {
		first();
		luo_end_stage(argc, argv);
	}
	second();
	pass();
}
