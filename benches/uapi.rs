//! Interfaces: evolution pairs through the argument copying, and reading and checking a header.
//!
//! `evolution/pairs` counts pairs of a program and a kernel: its element rate is pairs per second on one core, drawing
//! the interfaces and comparing them included.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use luosim_uapi::diff::diff;
use luosim_uapi::evolution::{Seed, draw, meet};
use luosim_uapi::header::read_alone;
use luosim_uapi::lint::lint;

const PAIRS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn evolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("evolution");
    group.throughput(Throughput::Elements(PAIRS.len() as u64));
    let mut seed = Seed(1);
    group.bench_function("pairs", |b| {
        b.iter(|| {
            let evolution = draw(&mut seed);
            black_box(diff(&evolution.old, &evolution.new));
            for (program, kernel) in PAIRS {
                let of = |new: bool| if new { &evolution.new } else { &evolution.old };
                let _ = black_box(meet(of(program), of(kernel), program <= kernel, &mut seed));
            }
        });
    });
    group.finish();
}

/// A header with `count` commands, each with a documented structure.
fn header(count: usize) -> String {
    let mut text = String::from("#define T 0xBA\nenum {\n\tBASE = 0,\n");
    for n in 0..count {
        text.push_str(&format!("\tCMD_{n},\n"));
    }
    text.push_str("};\n");
    for n in 0..count {
        text.push_str(&format!(
            "/**\n * struct s{n} - ioctl(DO_{n})\n * @size: Bytes\n * @flags: Must be 0\n * @name: Input; a name\n * @value: Output; \
             a value\n */\nstruct s{n} {{\n\t__u32 size;\n\t__u32 flags;\n\t__u8 name[64];\n\t__aligned_u64 value;\n}};\n\
             #define DO_{n} _IO(T, CMD_{n})\n"
        ));
    }
    text
}

fn headers(c: &mut Criterion) {
    let text = header(200);
    let mut group = c.benchmark_group("header");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("read", |b| {
        b.iter_batched(|| &text, |text| read_alone("x.h", text), BatchSize::LargeInput);
    });
    let loaded = read_alone("x.h", &text);
    group.bench_function("lint", |b| b.iter(|| lint(black_box(&loaded), None)));
    group.finish();
}

criterion_group!(benches, evolution, headers);
criterion_main!(benches);
