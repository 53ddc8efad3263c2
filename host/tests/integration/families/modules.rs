//! Families of modules, each with more and more of one thing.

use crate::abi::Handmade;

/// A family of modules by size.
pub type Modules = (&'static str, fn(usize) -> Handmade);

/// Text that is repeated, with a number in place of `{}`.
fn repeated(count: usize, text: &str) -> String {
    (0..count)
        .map(|at| text.replace("{}", &at.to_string()))
        .collect()
}

fn more(text: String) -> Handmade {
    Handmade::default().more(text)
}

pub const MODULES: &[Modules] = &[
    ("functions", |n| {
        more(repeated(n, "(func (result i32) (i32.const {}))"))
    }),
    ("types", |n| {
        more(repeated(n, "(type (func (param i32 i64) (result f32)))"))
    }),
    ("globals", |n| {
        more(repeated(n, "(global (mut i64) (i64.const {}))"))
    }),
    ("exports", |n| more(repeated(n, "(func (export \"e{}\"))"))),
    ("locals", |n| {
        more(format!("(func {})", repeated(n, "(local i64)")))
    }),
    ("parameters", |n| {
        more(format!("(func (param {}))", "i64 ".repeat(n)))
    }),
    ("blocks in blocks", |n| {
        more(format!(
            "(func {} {})",
            "block ".repeat(n),
            "end ".repeat(n)
        ))
    }),
    ("branches of a table", |n| {
        more(format!(
            "(func (block (br_table {} (i32.const 0))))",
            "0 ".repeat(n)
        ))
    }),
    ("one long function", |n| {
        let add = "i32.const 3 i32.mul i32.const 5 i32.add ".repeat(n);
        more(format!("(func (param i32) (result i32) local.get 0 {add})"))
    }),
    ("calls of each other", |n| {
        more(repeated(
            n,
            "(func $f{} (param i32) (call $f{} (local.get 0)) (call $f0 (local.get 0)))",
        ))
    }),
    ("data", |n| more(repeated(n, "(data (i32.const {}) \"x\")"))),
    ("elements", |n| {
        more(format!(
            "(func $e) (table {n} funcref) (elem (i32.const 0) {})",
            "$e ".repeat(n)
        ))
    }),
    ("pages of memory", |n| {
        Handmade::default().memory(n.max(2).to_string())
    }),
    ("entries of a table", |n| {
        more(format!("(table {} funcref)", 32 * n))
    }),
    ("strings of instructions on the stack", |n| {
        more(format!(
            "(func {} {})",
            "i32.const 0 ".repeat(n),
            "drop ".repeat(n)
        ))
    }),
    ("loops in loops", |n| {
        more(format!("(func {} {})", "loop ".repeat(n), "end ".repeat(n)))
    }),
    ("conditions in conditions", |n| {
        let begin = "local.get 0 if ".repeat(n);
        more(format!("(func (param i32) {begin} {})", "end ".repeat(n)))
    }),
    ("results", |n| {
        more(format!("(func (result {}) unreachable)", "i64 ".repeat(n)))
    }),
    ("tables", |n| more(repeated(n, "(table 1 funcref)"))),
    ("memories", |n| more(repeated(n, "(memory 1)"))),
    ("bytes of data", |n| {
        more(format!("(data \"{}\")", "x".repeat(64 * n)))
    }),
    ("data out of bounds", |n| {
        more(format!("(data (i32.const {}) \"x\")", 65_536 * n))
    }),
    ("passive elements", |n| {
        more(format!("(func $e) (elem func {})", "$e ".repeat(n)))
    }),
    ("names of functions", |n| {
        more(repeated(n, "(func $name_of_a_function_number_{})"))
    }),
    ("custom sections", |n| {
        more(repeated(n, "(@custom \"c{}\" \"x\")"))
    }),
    ("calls in calls at the start", |n| {
        let deeper = "(func $deep (param i32) (if (local.get 0)
            (then (call $deep (i32.sub (local.get 0) (i32.const 1))))))";
        let start = format!("(call $deep (i32.const {}))", n * n);
        more(deeper.into()).start(start)
    }),
    ("steps at the start", |n| {
        let steps = n.saturating_mul(n).min(1 << 31) - 1;
        let turn = "(local.set 0 (i32.sub (local.get 0) (i32.const 1))) (br_if 0 (local.get 0))";
        let start = format!("(local i32) (local.set 0 (i32.const {steps})) (loop {turn})");
        Handmade::default().start(start)
    }),
    ("memory that grows at the start", |n| {
        let grow = format!("(memory.grow (i32.const {n})) (i32.const -1)");
        Handmade::default().start(format!("(if (i32.eq {grow}) (then unreachable))"))
    }),
    ("memory that is filled at the start", |n| {
        let grow = format!("(drop (memory.grow (i32.const {n})))");
        let fill = format!(
            "(memory.fill (i32.const 131072) (i32.const 1) (i32.const {}))",
            n << 16
        );
        Handmade::default().start(format!("{grow} {fill}"))
    }),
    ("vectors", |n| {
        let add = "(local.set 0 (i32x4.mul (local.get 0) (i32x4.add (local.get 0) (local.get 0))))";
        more(format!("(func (local v128) {})", add.repeat(n)))
    }),
    ("roots", |n| {
        more(format!(
            "(func (param f64) (result f64) local.get 0 {})",
            "f64.sqrt ".repeat(n)
        ))
    }),
    ("values that live long", |n| {
        let set = repeated(
            n,
            "(local.set {} (i64.extend_i32_u (i32.load (i32.const {}))))",
        );
        let sum = repeated(n, "local.get {} i64.xor ");
        let locals = "i64 ".repeat(n);
        more(format!(
            "(func (result i64) (local {locals}) {set} i64.const 0 {sum})"
        ))
    }),
    ("branches", |n| {
        let branch = "(block (br_if 0 (local.get 0)) (local.set 0 (i32.const 1)))";
        more(format!("(func (param i32) {})", branch.repeat(n)))
    }),
    ("loads and stores", |n| {
        let step = "(i32.store (i32.load (local.get 0)) (i32.load offset=4 (local.get 0)))";
        more(format!("(func (param i32) {})", step.repeat(n)))
    }),
    ("calls through a table", |n| {
        let call = "(call_indirect (local.get 0))";
        more(format!(
            "(table $t 1 funcref) (func (param i32) {})",
            call.repeat(n)
        ))
    }),
];
