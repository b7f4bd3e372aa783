//! Files that need other files of their session: by description where they are preserved, by token where they come back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult};
use luosim_luo::{Context, FileHandler, FileId, Host, Luo, RetrieveStatus};

use crate::world::{World, boot, create, finish, jump, preserve, retrieve, take, try_preserve};

const RELEASE: ReleaseId = ReleaseId::V7_3;
/// Retrieved files get other descriptions: the number of the old one and this.
const RETRIEVED: u32 = 100;

type Needs = Rc<RefCell<BTreeMap<u32, u32>>>;

/// A handler whose files need others: file *n* needs the file that the table names.
struct Needy {
    needs: Needs,
    /// In `freeze` instead of `preserve`, as guest memory needs its VM.
    late: bool,
    retrieved: Rc<RefCell<Vec<u64>>>,
}

impl Needy {
    fn look(&self, cx: &mut Context<'_, World>, file: FileId) -> KResult<()> {
        let Some(other) = self.needs.borrow().get(&file.0).copied() else { return Ok(()) };
        let token = cx.token_outgoing(FileId(other))?;
        assert_eq!(token, u64::from(other), "the world preserves each file under its own number");
        Ok(())
    }
}

impl FileHandler<World> for Needy {
    fn compatible(&self) -> &'static str {
        "needy-v1"
    }

    fn can_preserve(&self, _: &World, _: FileId) -> bool {
        true
    }

    fn describe(&self, _: &World, file: FileId) -> String {
        format!("file {}", file.0)
    }

    fn preserve(&self, cx: &mut Context<'_, World>, file: FileId) -> KResult<u64> {
        if !self.late {
            self.look(cx, file)?;
        }
        Ok(u64::from(file.0))
    }

    fn unpreserve(&self, _: &mut Context<'_, World>, _: FileId, _: u64) {}

    fn freeze(&self, cx: &mut Context<'_, World>, file: FileId, data: u64) -> KResult<u64> {
        if self.late {
            self.look(cx, file)?;
        }
        Ok(data)
    }

    fn retrieve(&self, cx: &mut Context<'_, World>, data: u64) -> KResult<FileId> {
        let file = u32::try_from(data).expect("a file number");
        let other = self.needs.borrow().get(&file).copied();
        if let Some(other) = other {
            let needed = cx.file_incoming(u64::from(other))?;
            assert_eq!(needed, FileId(other + RETRIEVED));
            assert!(cx.host.references[&needed.0] > 0, "what is given has a reference");
            cx.host.file_put(needed);
        }
        self.retrieved.borrow_mut().push(data);
        Ok(FileId(file + RETRIEVED))
    }

    fn finish(&self, _: &mut Context<'_, World>, _: RetrieveStatus, _: u64) {}
}

type Retrieved = Rc<RefCell<Vec<u64>>>;

fn with(needs: &[(u32, u32)], late: bool, luo: &mut Luo<World>) -> (Needs, Retrieved) {
    let table: Needs = Rc::new(RefCell::new(needs.iter().copied().collect()));
    let retrieved = Retrieved::default();
    let handler = Needy { needs: table.clone(), late, retrieved: retrieved.clone() };
    luo.register_handler(Rc::new(handler)).expect("the first");
    (table, retrieved)
}

#[test]
fn a_needed_file_must_be_preserved_before_and_in_the_same_session() {
    let (mut world, mut luo) = boot(RELEASE);
    with(&[(2, 1), (3, 3)], false, &mut luo);
    let (one, two) = (create(&mut luo, &mut world, b"one"), create(&mut luo, &mut world, b"two"));
    let mut refused =
        |session, file| try_preserve(&mut luo, &mut world, session, file).map_err(|refusal| refusal.errno);
    assert_eq!(refused(one, 2), Err(Errno::ENOENT), "its file is not there yet");
    assert_eq!(refused(two, 1), Ok(()));
    assert_eq!(refused(one, 2), Err(Errno::ENOENT), "another session's files are not seen");
    assert_eq!(refused(two, 2), Ok(()));
    assert_eq!(
        refused(one, 3),
        Err(Errno::ENOENT),
        "a file is not in its session while it is being preserved"
    );
}

#[test]
fn a_look_up_at_freeze_is_in_any_order_and_refuses_the_reboot() {
    let (mut world, mut luo) = boot(RELEASE);
    with(&[(1, 2)], true, &mut luo);
    let session = create(&mut luo, &mut world, b"one");
    preserve(&mut luo, &mut world, session, 1);
    let refusal = luo.reboot(&mut world).expect_err("file 2 is missing");
    assert_eq!(refusal.errno, Errno::ENOENT);
    preserve(&mut luo, &mut world, session, 2);
    luo.reboot(&mut world).expect("file 2 is there, though preserved later");
}

/// Files 1, 2 and 3 preserved in one session and carried; nothing needs anything before the jump.
fn carried(needs: &[(u32, u32)]) -> (World, Luo<World>, Retrieved) {
    let (mut world, mut luo) = boot(RELEASE);
    with(&[], false, &mut luo);
    let session = create(&mut luo, &mut world, b"one");
    (1..4).for_each(|file| preserve(&mut luo, &mut world, session, file));
    let (world, mut luo) = jump(world, luo, RELEASE);
    let (_, retrieved) = with(needs, false, &mut luo);
    (world, luo, retrieved)
}

#[test]
fn a_needed_file_is_retrieved_on_demand_and_once() {
    let (mut world, mut luo, retrieved) = carried(&[(3, 2), (2, 1)]);
    let session = take(&mut luo, &mut world, b"one");
    retrieve(&mut luo, &mut world, session, 3).expect("pulls 2, which pulls 1");
    assert_eq!(*retrieved.borrow(), [1, 2, 3]);
    retrieve(&mut luo, &mut world, session, 1).expect("it is there");
    assert_eq!(*retrieved.borrow(), [1, 2, 3], "idempotent");
    // The world's handler gives LUO's own reference uncounted: what is counted are the users.
    assert_eq!((world.references[&101], world.references[&103]), (1, 1), "2 gave its reference on 1 back");
    finish(&mut luo, &mut world, session).expect("nobody objects");
    assert_eq!(world.references[&101], 0, "LUO's reference is given back");
}

#[test]
fn a_needed_token_that_is_not_there_is_enoent_and_stays() {
    let (mut world, mut luo, retrieved) = carried(&[(3, 9)]);
    let session = take(&mut luo, &mut world, b"one");
    for _ in 0..2 {
        let refusal = retrieve(&mut luo, &mut world, session, 3).expect_err("there is no token 9");
        assert_eq!(refusal.errno, Errno::ENOENT);
    }
    assert!(retrieved.borrow().is_empty());
}

#[test]
fn a_circle_is_told_and_does_not_hang() {
    let (mut world, mut luo, retrieved) = carried(&[(1, 2), (2, 3), (3, 1)]);
    let session = take(&mut luo, &mut world, b"one");
    let refusal = retrieve(&mut luo, &mut world, session, 1).expect_err("it waits for itself");
    assert_eq!(refusal.errno, Errno::EDEADLK);
    assert!(refusal.reason.contains("0x1 -> 0x2 -> 0x3 -> 0x1"), "{}", refusal.reason);
    assert!(world.log.contains("a kernel would hang here"));
    assert!(retrieved.borrow().is_empty());
    finish(&mut luo, &mut world, session).expect("failed files are finished");
}
