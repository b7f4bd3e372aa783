/*
 * The control interface of the live update orchestrator as it was posted in
 * July 2025, written again from its published numbers and layouts: names,
 * values and places are those of the posting, the words are not.
 */
#ifndef POSTED_V2_LIVEUPDATE_H
#define POSTED_V2_LIVEUPDATE_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* States of the machine. */
enum liveupdate_state {
	LIVEUPDATE_STATE_UNDEFINED = 0,
	LIVEUPDATE_STATE_NORMAL = 1,
	LIVEUPDATE_STATE_PREPARED = 2,
	LIVEUPDATE_STATE_FROZEN = 3,
	LIVEUPDATE_STATE_UPDATED = 4,
};

/* A file and the name that the program gives it. */
struct liveupdate_fd {
	int		fd;
	__u32		flags;
	__aligned_u64	token;
};

/* The type byte. */
#define LIVEUPDATE_IOCTL_TYPE		0xBA

/** Registers a file under a token. */
#define LIVEUPDATE_IOCTL_FD_PRESERVE \
	_IOW(LIVEUPDATE_IOCTL_TYPE, 0x00, struct liveupdate_fd)

/** Forgets a token. */
#define LIVEUPDATE_IOCTL_FD_UNPRESERVE \
	_IOW(LIVEUPDATE_IOCTL_TYPE, 0x01, __u64)

/** Gives a file of the previous kernel back. */
#define LIVEUPDATE_IOCTL_FD_RESTORE \
	_IOWR(LIVEUPDATE_IOCTL_TYPE, 0x02, struct liveupdate_fd)

/** Tells the state. */
#define LIVEUPDATE_IOCTL_GET_STATE \
	_IOR(LIVEUPDATE_IOCTL_TYPE, 0x03, enum liveupdate_state)

/** Gets ready for the jump. */
#define LIVEUPDATE_IOCTL_PREPARE \
	_IO(LIVEUPDATE_IOCTL_TYPE, 0x04)

/** No jump after all. */
#define LIVEUPDATE_IOCTL_CANCEL \
	_IO(LIVEUPDATE_IOCTL_TYPE, 0x06)

/** The jump is over. */
#define LIVEUPDATE_IOCTL_FINISH \
	_IO(LIVEUPDATE_IOCTL_TYPE, 0x07)

#endif
