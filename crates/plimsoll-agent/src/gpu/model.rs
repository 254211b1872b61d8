//! Short names of GPU models, so that `--gpu h100:2` means the board however its driver spells it.

/// One gibibyte, in bytes.
const GIB: u64 = 1 << 30;

/// Memory per known short name, in gibibytes: for simulated boards and trace files that name only the model.
const KNOWN_GIB: &[(&str, u64)] = &[
    ("a10", 24),
    ("a100", 80),
    ("a100-40gb", 40),
    ("a16", 16),
    ("a2", 16),
    ("a30", 24),
    ("a40", 48),
    ("a6000", 48),
    ("b200", 192),
    ("g2", 16),
    ("g3", 32),
    ("gb200", 192),
    ("h100", 80),
    ("h200", 141),
    ("h20", 96),
    ("h800", 80),
    ("k80", 12),
    ("l4", 24),
    ("l40", 48),
    ("l40s", 48),
    ("p100", 16),
    ("p4", 8),
    ("p40", 24),
    ("rtx3090", 24),
    ("rtx4090", 24),
    ("t4", 16),
    ("v100", 16),
    ("v100-32gb", 32),
    ("v100m16", 16),
    ("v100m32", 32),
];

/// Words that say maker, brand, plug or memory kind, and nothing about the model.
const NOISE: &[&str] = &[
    "nvidia",
    "tesla",
    "quadro",
    "geforce",
    "graphics",
    "gpu",
    "pcie",
    "sxm",
    "sxm2",
    "sxm3",
    "sxm4",
    "sxm5",
    "sxm6",
    "hbm2",
    "hbm2e",
    "hbm3",
    "hbm3e",
    "mig",
    "nvl",
    "ada",
    "generation",
    "laptop",
    "oem",
];

/// Memory of a board of this model in bytes, where the short name is known.
pub fn known_memory_bytes(model: &str) -> Option<u64> {
    KNOWN_GIB.iter().find(|(name, _)| *name == model).map(|(_, gib)| gib * GIB)
}

/// The short lower-case name of a model: "NVIDIA H100 80GB HBM3" is `h100`, "Tesla T4" is `t4`, "NVIDIA GeForce RTX
/// 4090" is `rtx4090`. A name of which nothing is left stays whole, with dashes for spaces.
pub fn short_model(full_name: &str) -> String {
    let lower = full_name.to_ascii_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| c.is_whitespace() || c == '-' || c == '_')
        .filter(|word| !word.is_empty() && !NOISE.contains(word) && !is_memory_size(word))
        .collect();
    match words.as_slice() {
        [] => lower.split_whitespace().collect::<Vec<_>>().join("-"),
        ["rtx", model, rest @ ..] => join(&format!("rtx{model}"), rest),
        ["gtx", model, rest @ ..] => join(&format!("gtx{model}"), rest),
        [model, rest @ ..] => join(model, rest),
    }
}

fn join(model: &str, rest: &[&str]) -> String {
    // "RTX 4080 SUPER" keeps its second word; "A100 X" would too: only words that begin with a letter distinguish.
    let mut name = model.to_owned();
    for word in rest.iter().filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())) {
        name.push('-');
        name.push_str(word);
    }
    name
}

/// "80gb", "141gb", "16g".
fn is_memory_size(word: &str) -> bool {
    let digits =
        word.strip_suffix("gb").or_else(|| word.strip_suffix("gib")).or_else(|| word.strip_suffix('g'));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_spellings_become_short_names() {
        for (full, short) in [
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA H100 PCIe", "h100"),
            ("NVIDIA H200", "h200"),
            ("NVIDIA A100-SXM4-80GB", "a100"),
            ("NVIDIA A100-PCIE-40GB", "a100"),
            ("Tesla T4", "t4"),
            ("Tesla V100-SXM2-16GB", "v100"),
            ("NVIDIA L40S", "l40s"),
            ("NVIDIA GeForce RTX 4090", "rtx4090"),
            ("NVIDIA GeForce RTX 4080 SUPER", "rtx4080-super"),
            ("NVIDIA GB200", "gb200"),
            ("V100M32", "v100m32"),
            ("P100", "p100"),
            ("G2", "g2"),
            ("NVIDIA Graphics GPU", "nvidia-graphics-gpu"),
        ] {
            assert_eq!(short_model(full), short, "{full}");
        }
    }

    #[test]
    fn sizes_of_known_models() {
        assert_eq!(known_memory_bytes("h200"), Some(141 << 30));
        assert_eq!(known_memory_bytes("t4"), Some(16 << 30));
        assert_eq!(known_memory_bytes("abacus"), None);
    }
}
