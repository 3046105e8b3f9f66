//! Device rules as BPF instructions.
//!
//! The kernel asks about one device and one or more kinds of access at once. Each kind is decided by the last rule that
//! speaks of it, so the rules are gone through from the last to the first, and what a rule allows is struck off what
//! is still to be decided:
//!
//! ```text
//! r2 = kind of device, r3 = access still to be decided, r4 = major, r5 = minor
//! for each rule, last first:   unless the device is the rule's, go on
//!     deny:   if r3 has any of the rule's access, return 0
//!     allow:  take the rule's access from r3; if nothing is left, return 1
//! return 0
//! ```

use super::{DeviceKind, DeviceRule};

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    /// Destination in the low four bits, source in the high ones (on a little-endian machine).
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// `BPF_LDX | BPF_MEM | BPF_W`
pub(super) const LOAD: u8 = 0x61;
/// `BPF_ALU64 | BPF_MOV | BPF_X`
pub(super) const MOVE: u8 = 0xbf;
/// `BPF_ALU64 | BPF_MOV | BPF_K`
pub(super) const SET: u8 = 0xb7;
/// `BPF_ALU64 | BPF_AND | BPF_K`
pub(super) const AND: u8 = 0x57;
/// `BPF_ALU64 | BPF_RSH | BPF_K`
pub(super) const SHIFT_RIGHT: u8 = 0x77;
/// `BPF_JMP | BPF_JNE | BPF_K`
pub(super) const JUMP_UNEQUAL: u8 = 0x55;
/// `BPF_JMP | BPF_JSET | BPF_K`
pub(super) const JUMP_ANY_BIT: u8 = 0x45;
/// `BPF_JMP | BPF_JA`
pub(super) const JUMP: u8 = 0x05;
/// `BPF_JMP | BPF_EXIT`
pub(super) const EXIT: u8 = 0x95;

const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `BPF_DEVCG_DEV_BLOCK`, `BPF_DEVCG_DEV_CHAR`
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// `BPF_DEVCG_ACC_MKNOD`, `…_READ`, `…_WRITE`
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    let registers =
        if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    Instruction { code, registers, offset, immediate }
}

fn answer(value: i32) -> [Instruction; 2] {
    [op(SET, 0, 0, 0, value), op(EXIT, 0, 0, 0, 0)]
}

/// The program of these rules.
pub(super) fn build(rules: &[DeviceRule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx: u32 access << 16 | kind, u32 major, u32 minor
    let mut program = vec![
        op(LOAD, KIND, 1, 0, 0),
        op(MOVE, ACCESS, KIND, 0, 0),
        op(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        op(AND, KIND, 0, 0, 0xffff),
        op(LOAD, MAJOR, 1, 4, 0),
        op(LOAD, MINOR, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
    }
    program.extend(answer(0));
    program
}

fn block(rule: &DeviceRule) -> Vec<Instruction> {
    let bits = access(&rule.access);
    let decide: Vec<Instruction> = if rule.allow {
        let [set, exit] = answer(1);
        vec![op(AND, ACCESS, 0, 0, !bits), op(JUMP_UNEQUAL, ACCESS, 0, 2, 0), set, exit]
    } else {
        let [set, exit] = answer(0);
        vec![op(JUMP_ANY_BIT, ACCESS, 0, 1, bits), op(JUMP, 0, 0, 2, 0), set, exit]
    };
    // A number that no device can have matches none.
    let Some(conditions) = conditions(rule) else { return Vec::new() };
    let mut block = Vec::with_capacity(conditions.len() + decide.len());
    for (at, (register, value)) in conditions.iter().enumerate() {
        // At most three conditions and four instructions.
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        let over = (conditions.len() - at - 1 + decide.len()) as i16;
        block.push(op(JUMP_UNEQUAL, *register, 0, over, *value));
    }
    block.extend(decide);
    block
}

/// What has to be equal for the device to be the rule's; `None`: it never is.
fn conditions(rule: &DeviceRule) -> Option<Vec<(u8, i32)>> {
    let mut all = Vec::with_capacity(3);
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => all.push((KIND, BLOCK)),
        DeviceKind::Char => all.push((KIND, CHAR)),
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number.filter(|number| *number >= 0) {
            all.push((register, i32::try_from(number).ok()?));
        }
    }
    Some(all)
}

fn access(letters: &str) -> i32 {
    if letters.is_empty() {
        return MKNOD | READ | WRITE;
    }
    letters.chars().fold(0, |bits, letter| {
        bits | match letter {
            'm' => MKNOD,
            'r' => READ,
            'w' => WRITE,
            _ => 0,
        }
    })
}
