//! The chapter about hardware held to the code: register maps, numbers and names.

use luosim_hardware::iommu::{FaultReason, reg as iommu};
use luosim_hardware::simdma::layout::{Op, reg as simdma};
use luosim_hardware::timeline::Phase;
use luosim_hardware::verify::Invariant;

fn chapter() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/hardware.md");
    std::fs::read_to_string(path).expect("the chapter")
}

/// Rows of the table behind a marker, cell by cell.
fn rows(marker: &str) -> Vec<Vec<String>> {
    let text = chapter();
    let (_, rest) = text.split_once(&format!("<!-- {marker} -->\n\n")).expect("the marker");
    let table = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    table.map(cells).collect()
}

/// Every register of a module, in the order of the chapter.
macro_rules! registers {
    ($module:ident: $($name:ident)*) => {
        vec![$((stringify!($name).to_owned(), format!("{:#04x}", $module::$name))),*]
    };
}

fn register_map(marker: &str) -> Vec<(String, String)> {
    rows(marker).into_iter().map(|row| (row[2].clone(), row[0].clone())).collect()
}

#[test]
fn register_maps_are_the_crates() {
    let want =
        registers!(iommu: ROOT_PA CTRL FAULT_STS FAULT_ADDR FAULT_RID FAULT_CNT INVAL INVAL_CNT DID_USED);
    assert_eq!(register_map("registers: iommu"), want);
    let want = registers!(simdma: ID CTRL STATUS RING_IOVA RING_LEN HEAD TAIL CQ_IOVA SEQ BYTES FAULT_IOVA FAULT_CNT
        DROP_CNT RESET_CNT EPOCH_SEEN UPTIME MSIX_TABLE MSIX_PENDING);
    assert_eq!(register_map("registers: simdma"), want);
}

#[test]
fn tables_of_names_are_the_crates() {
    let row = |code: u16, name: &str, about: &str| vec![code.to_string(), name.to_owned(), about.to_owned()];
    let want: Vec<_> =
        FaultReason::ALL.iter().map(|one| row(one.code().into(), one.name(), one.describe())).collect();
    assert_eq!(rows("table: faults"), want);
    let want: Vec<_> = Op::ALL.iter().map(|one| row(one.code(), one.name(), one.describe())).collect();
    assert_eq!(rows("table: ops"), want);
    let guest = |phase: &Phase| if phase.is_blackout() { "stands still" } else { "runs" };
    let row = |one: &Phase| vec![one.name().to_owned(), guest(one).to_owned(), one.describe().to_owned()];
    assert_eq!(rows("table: phases"), Phase::ALL.iter().map(row).collect::<Vec<_>>());
    let want: Vec<_> =
        Invariant::ALL.iter().map(|one| vec![one.name().to_owned(), one.describe().to_owned()]).collect();
    assert_eq!(rows("table: invariants"), want);
}
