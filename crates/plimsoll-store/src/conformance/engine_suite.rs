//! What every engine promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::EngineHome;
use crate::engine::{Engine, View, WriteBatch};

/// Runs every scenario, each in a home of its own.
pub(super) fn run(home: &dyn Fn() -> EngineHome) {
    the_last_op_on_a_key_wins(&home());
    rows_are_there_after_reopening(&home());
    a_scan_keeps_to_its_prefix_and_start(&home());
    a_scan_goes_on_over_many_rows(&home());
    a_view_does_not_see_later_writes(&home());
    a_view_moves_to_another_thread_and_outlives_its_engine(&home());
    replacing_leaves_only_the_new_rows(&home());
    bytes_grow_with_the_rows(&home());
    random_batches_agree_with_a_map(home);
}

fn batch(rows: &[(&str, Option<&str>)]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in rows {
        match value {
            Some(value) => batch.put((*key).to_owned(), (*value).to_owned()),
            None => batch.delete((*key).to_owned()),
        }
    }
    batch
}

fn rows(view: &dyn View, prefix: &[u8], from: &[u8]) -> Vec<(Bytes, Bytes)> {
    view.scan(prefix, from).map(Result::unwrap).collect()
}

fn keys(view: &dyn View, prefix: &str, from: &str) -> Vec<String> {
    let rows = rows(view, prefix.as_bytes(), from.as_bytes());
    rows.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
}

fn the_last_op_on_a_key_wins(home: &EngineHome) {
    let engine = home();
    engine.write(WriteBatch::new()).unwrap();
    engine.write(batch(&[("a", Some("1")), ("a", Some("2")), ("b", Some("3")), ("b", None)])).unwrap();
    assert_eq!(engine.get(b"a").unwrap(), Some("2".into()));
    assert_eq!(engine.get(b"b").unwrap(), None);
    engine.write(batch(&[("a", None), ("b", None), ("b", Some(""))])).unwrap();
    assert_eq!(engine.get(b"a").unwrap(), None);
    assert_eq!(engine.get(b"b").unwrap(), Some(Bytes::new()));
}

fn rows_are_there_after_reopening(home: &EngineHome) {
    {
        let engine = home();
        engine.write(batch(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
        engine.sync().unwrap();
        engine.write(batch(&[("c", Some("3"))])).unwrap();
        engine.sync().unwrap();
        engine.sync().unwrap();
    }
    assert_eq!(keys(&*home().view(), "", ""), ["a", "b", "c"]);
}

fn a_scan_keeps_to_its_prefix_and_start(home: &EngineHome) {
    let engine = home();
    engine
        .write(batch(&[
            ("a", Some("")),
            ("b", Some("")),
            ("b1", Some("")),
            ("b2", Some("")),
            ("b\u{7f}", Some("")),
            ("c", Some("")),
        ]))
        .unwrap();
    let view = engine.view();
    assert_eq!(keys(&*view, "b", ""), ["b", "b1", "b2", "b\u{7f}"]);
    assert_eq!(keys(&*view, "b", "b1"), ["b1", "b2", "b\u{7f}"]);
    assert_eq!(keys(&*view, "b", "b1x"), ["b2", "b\u{7f}"]);
    assert_eq!(keys(&*view, "b", "a"), ["b", "b1", "b2", "b\u{7f}"]);
    assert!(keys(&*view, "b", "c").is_empty());
    assert!(keys(&*view, "zz", "").is_empty());
    assert_eq!(keys(&*view, "", "b2"), ["b2", "b\u{7f}", "c"]);
    assert_eq!(view.get(b"b1").unwrap(), Some(Bytes::new()));
    assert_eq!(view.get(b"b3").unwrap(), None);
}

fn a_scan_goes_on_over_many_rows(home: &EngineHome) {
    const ROWS: u32 = 5_000;
    let engine = home();
    let mut all = WriteBatch::new();
    for number in 0..ROWS {
        all.put(number.to_be_bytes().to_vec(), vec![7; (number % 600) as usize]);
    }
    engine.write(all).unwrap();
    let view = engine.view();
    let found = rows(&*view, b"", b"");
    assert_eq!(found.len(), ROWS as usize);
    for (number, (key, value)) in (0..ROWS).zip(&found) {
        assert_eq!((&key[..], value.len()), (&number.to_be_bytes()[..], (number % 600) as usize));
    }
    // Two scans of one view at a time do not disturb each other.
    let both: Vec<_> = view.scan(b"", b"").zip(view.scan(b"", &9_u32.to_be_bytes())).collect();
    assert_eq!(both.len(), ROWS as usize - 9);
    assert!(both.iter().all(|(one, other)| one.as_ref().unwrap().0 < other.as_ref().unwrap().0));
}

fn a_view_does_not_see_later_writes(home: &EngineHome) {
    let engine = home();
    engine.write(batch(&[("a", Some("1")), ("b", Some("1"))])).unwrap();
    let before = engine.view();
    engine.write(batch(&[("a", None), ("b", Some("2")), ("c", Some("2"))])).unwrap();
    let between = engine.view();
    engine.replace_all(batch(&[("d", Some("3"))])).unwrap();
    assert_eq!(keys(&*before, "", ""), ["a", "b"]);
    assert_eq!(before.get(b"b").unwrap(), Some("1".into()));
    assert_eq!(keys(&*between, "", ""), ["b", "c"]);
    drop(before);
    assert_eq!(between.get(b"b").unwrap(), Some("2".into()));
    assert_eq!(keys(&*engine.view(), "", ""), ["d"]);
}

fn a_view_moves_to_another_thread_and_outlives_its_engine(home: &EngineHome) {
    let engine = home();
    engine.write(batch(&[("a", Some("1"))])).unwrap();
    let view = engine.view();
    drop(engine);
    let moved = std::thread::spawn(move || keys(&*view, "", "")).join().unwrap();
    assert_eq!(moved, ["a"]);
    // All handles are gone, so it can be opened again.
    assert_eq!(keys(&*home().view(), "", ""), ["a"]);
}

fn replacing_leaves_only_the_new_rows(home: &EngineHome) {
    {
        let engine = home();
        engine.replace_all(batch(&[("old", Some("1")), ("\u{10ffff}", Some("1"))])).unwrap();
        engine.write(batch(&[("older", Some("1"))])).unwrap();
        engine.replace_all(batch(&[("new", Some("2")), ("old", Some("2"))])).unwrap();
        assert_eq!(keys(&*engine.view(), "", ""), ["new", "old"]);
    }
    let engine = home();
    assert_eq!(keys(&*engine.view(), "", ""), ["new", "old"]);
    assert_eq!(engine.get(b"old").unwrap(), Some("2".into()));
    engine.replace_all(WriteBatch::new()).unwrap();
    assert!(keys(&*engine.view(), "", "").is_empty());
    assert_eq!(engine.get(b"old").unwrap(), None);
}

fn bytes_grow_with_the_rows(home: &EngineHome) {
    let engine = home();
    let before = engine.approximate_bytes();
    let mut large = WriteBatch::new();
    large.put("a", vec![1; 1 << 20]);
    assert_eq!((large.len(), large.byte_size()), (1, (1 << 20) + 1));
    engine.write(large).unwrap();
    assert!(engine.approximate_bytes() >= before + (1 << 20));
}

fn random_batches_agree_with_a_map(home: &dyn Fn() -> EngineHome) {
    let op = (proptest::collection::vec(0_u8..3, 0..3), proptest::option::weighted(0.7, 0_u8..255));
    let batches = proptest::collection::vec((proptest::collection::vec(op, 0..6), 0_u8..10), 1..30);
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    for _ in 0..12 {
        let home = home();
        let mut engine: Arc<dyn Engine> = home();
        let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for (ops, kind) in batches.new_tree(&mut runner).unwrap().current() {
            let value = |value: Option<u8>| value.map(|value| Bytes::from(vec![value; 3]));
            let ops = ops.into_iter().map(|(key, new)| (Bytes::from(key), value(new))).collect();
            let batch = WriteBatch { ops };
            if kind == 0 {
                model.clear();
            }
            for (key, value) in batch.ops.clone() {
                drop(match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                });
            }
            match kind {
                0 => engine.replace_all(batch).unwrap(),
                _ => engine.write(batch).unwrap(),
            }
            if kind == 1 {
                drop(engine);
                engine = home();
            }
            let expected: Vec<_> = model.clone().into_iter().collect();
            assert_eq!(rows(&*engine.view(), b"", b""), expected);
        }
    }
}
