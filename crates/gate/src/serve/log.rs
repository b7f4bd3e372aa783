//! `syslog(2)`: the log that a program reads is its own kernel's.

use luosim_abi::{Errno, KResult};

use super::ioctl::caller;
use super::{Reply, signed};
use crate::gate::Gate;
use crate::task::Task;

const READ_ALL: i32 = 3;
const READ_CLEAR: i32 = 4;
const CLEAR: i32 = 5;
const SIZE_BUFFER: i32 = 10;
/// What the kernel calls the size of its log.
const BUFFER: i64 = 1 << 18;

impl Gate {
    pub(super) fn syslog(&mut self, tid: i32, args: [u64; 6]) -> Reply {
        let Some(task) = caller(self, tid) else { return Reply::Gone };
        match signed(args[0]) {
            READ_ALL | READ_CLEAR => {
                self.read_log(&task, args[1], signed(args[2])).map_or_else(Reply::Refuse, Reply::Value)
            }
            // The host's log is not a program's to clear.
            CLEAR => Reply::Value(0),
            SIZE_BUFFER => Reply::Value(BUFFER),
            _ => Reply::GoOn,
        }
    }

    /// The newest whole lines that fit.
    fn read_log(&self, task: &Task, buf: u64, len: i32) -> KResult<i64> {
        let room = usize::try_from(len).ok().filter(|_| buf != 0);
        let room = room.ok_or_else(|| Errno::EINVAL.because("no buffer for the log"))?;
        let lines = self.machine.kernel().map(|kernel| kernel.log().lines.as_slice()).unwrap_or_default();
        let mut text = String::new();
        for line in lines.iter().rev() {
            let shown = format!("<{}>[    0.000000] {}\n", line.level.number(), line.text);
            if text.len() + shown.len() > room {
                break;
            }
            text.insert_str(0, &shown);
        }
        task.write(buf, text.as_bytes())?;
        Ok(i64::try_from(text.len()).expect("at most the room"))
    }
}
