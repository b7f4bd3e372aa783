/*
 * filter [1|2] [-k]: a program with seccomp filters of its own.
 *
 * Stage 1: a filter that allows all but makes personality(2) EPERM, installed after the device is open, and again
 * before an open: all calls work. A child whose filter makes every ioctl of type 0xBA EPERM sees EPERM: the
 * program's filter wins. A child that asks for a listener of its own gets EBUSY (one per chain) or is allowed;
 * it must not be killed or hang. Stage 2: retrieve under a filter.
 */
#include "luo.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

const char *const test_name = "filter";

#define FIELD(name) ((uint32_t)offsetof(struct seccomp_data, name))

static long install(struct sock_filter *code, unsigned short length, unsigned flags)
{
	struct sock_fprog program = { length, code };

	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static void forbid_personality(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_personality, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	must(install(code, sizeof code / sizeof *code, 0) == 0);
	must_fail(syscall(SYS_personality, 0xffffffffUL), EPERM);
}

static void forbid_luo(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(args[1])),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xBA00, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	must(install(code, sizeof code / sizeof *code, 0) == 0);
}

static void in_child(void (*body)(int), int device)
{
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		alarm(10); /* a hang is a failure */
		body(device);
		_exit(0);
	}
	luo_wait(child);
}

static void child_forbidden(int device)
{
	forbid_luo();
	must_fail(luo_create(device, "forbidden"), EPERM);
}

static void child_listener(int device)
{
	struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	long r = install(code, 1, SECCOMP_FILTER_FLAG_NEW_LISTENER);

	if (r < 0 && errno != EBUSY)
		fail("own listener: errno %d", errno);
	must(luo_create(device, "with-listener") >= 0);
}

static void first(void)
{
	int device = luo_open(), session, memory = luo_memfd("filtered", 4096);

	in_child(child_forbidden, device);
	in_child(child_listener, device);
	forbid_personality();
	session = luo_create(device, "filter");
	must(session >= 0);
	must(luo_preserve(session, memory, 1) == 0);
	close(device);
	device = luo_open();
	must_fail(luo_create(device, "filter"), EEXIST);
	must(luo_create(device, "with-listener") >= 0);
	must(luo_create(device, "forbidden") >= 0);
	close(device);
}

static void second(void)
{
	int device, session, memory;

	forbid_personality();
	device = luo_open();
	session = luo_take(device, "filter");
	must(session >= 0);
	memory = luo_retrieve(session, 1);
	must(memory >= 0);
	luo_check_text(memory, "filtered", 0);
	must(luo_finish(session) == 0);
}

int main(int argc, char **argv)
{
	if (luo_stage(argc, argv) == 1) {
		first();
		if (!luo_has(argc, argv, "-k"))
			luo_custodian();
		luo_end_stage(argc, argv);
	}
	second();
	pass();
}
