//! `--role NAME:MEMBERS:ASKS`: members of one kind of a gang.

use plimsoll_client::v1::{GpuAsk, Quantities, Requirements, Role};
use plimsoll_types::quantity;

use super::resources::{read_amount, read_selector};
use crate::error::CliError;

/// Reads a role: its name, how many there are (`4`, or `0-8` for at most 8), and what each asks, as the flags of the same names do: `cpu=4,mem=16Gi`,
/// `gpu=h100:2`, `gpu-mem=20Gi`, `gpu-mig=1g.10gb`, `require=zone=a`, and other resources by their names.
pub(super) fn read_role(text: &str) -> Result<Role, CliError> {
    let wrong = |what: &str| {
        CliError::usage(format!("--role {text:?}: {what}")).help(
            "write NAME:MEMBERS:ASKS, as in --role launcher:1:cpu=1 --role worker:2-8:cpu=4,mem=16Gi,gpu=1",
        )
    };
    let mut parts = text.splitn(3, ':');
    let (name, members) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let asks = parts.next().ok_or_else(|| wrong("is not NAME:MEMBERS:ASKS"))?;
    let (min, max) = members.split_once('-').unwrap_or((members, members));
    let (min_members, max_members) = match (min.parse::<u32>(), max.parse::<u32>()) {
        (Ok(min), Ok(max)) if min <= max && max > 0 => (min, max),
        _ => return Err(wrong(&format!("{members:?} is not a number from 1, or MIN-MAX"))),
    };
    let mut amounts = Quantities::default();
    let mut requirements = Requirements::default();
    let mut gpu: Option<GpuAsk> = None;
    let mut memory_bytes = 0;
    for ask in asks.split(',').filter(|ask| !ask.is_empty()) {
        let Some((key, value)) = ask.split_once('=') else {
            return Err(wrong(&format!("{ask:?} is not NAME=AMOUNT")));
        };
        match key {
            "cpu" => amounts.cpu_millis = quantity::parse_cpu_millis(value)?,
            "mem" | "memory" => amounts.memory_bytes = quantity::parse_bytes(value)?,
            "gpu" => {
                let asked = quantity::parse_gpu(value)?;
                let ask = gpu.get_or_insert_default();
                (ask.count, ask.milli) = (asked.count, u32::from(asked.milli));
                ask.models = asked.model.into_iter().collect();
            }
            "gpu-mem" => memory_bytes = quantity::parse_bytes(value)?,
            "gpu-mig" => gpu.get_or_insert_default().mig_profile = value.trim().to_ascii_lowercase(),
            "require" => requirements.required.extend(read_selector(value)?),
            _ => {
                let (name, amount) = read_amount("--role", ask)?;
                amounts.other.insert(name.to_owned(), amount);
            }
        }
    }
    requirements.amounts = Some(amounts);
    requirements.gpu = with_memory(gpu, memory_bytes);
    Ok(Role { name: name.to_owned(), requirements: Some(requirements), min_members, max_members })
}

/// GPU memory alone is a share of one device; with devices it is the least of each.
fn with_memory(gpu: Option<GpuAsk>, memory_bytes: u64) -> Option<GpuAsk> {
    let Some(mut gpu) = gpu else {
        return (memory_bytes > 0).then(|| GpuAsk { count: 1, memory_bytes, ..GpuAsk::default() });
    };
    gpu.min_device_memory_bytes = memory_bytes;
    if !gpu.mig_profile.is_empty() {
        // An instance is of one device.
        gpu.count = gpu.count.max(1);
        gpu.milli = if gpu.milli == 1_000 { 0 } else { gpu.milli };
    }
    Some(gpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_says_its_name_how_many_and_what_each_asks() {
        let role =
            read_role("worker:2-8:cpu=4,mem=16Gi,gpu=h100:2,license/foo=1,require=zone=a").expect("reads");
        let needs = role.requirements.expect("given");
        let amounts = needs.amounts.expect("given");
        assert_eq!((role.name.as_str(), role.min_members, role.max_members), ("worker", 2, 8));
        assert_eq!((amounts.cpu_millis, amounts.memory_bytes), (4_000, 16 << 30));
        assert_eq!(amounts.other["license/foo"], 1);
        let gpu = needs.gpu.expect("given");
        assert_eq!((gpu.count, gpu.models), (2, vec!["h100".to_owned()]));
        assert_eq!((needs.required[0].key.as_str(), needs.required[0].values[0].as_str()), ("zone", "a"));
        assert_eq!(read_role("helper:0-2:").expect("reads").min_members, 0);
    }

    #[test]
    fn what_is_no_role_is_said_with_how_to_write_one() {
        for (text, why) in [
            ("worker", "is not NAME:MEMBERS:ASKS"),
            ("worker:many:cpu=1", "\"many\" is not a number from 1, or MIN-MAX"),
            ("worker:3-2:cpu=1", "\"3-2\" is not a number from 1, or MIN-MAX"),
            ("worker:0:cpu=1", "\"0\" is not a number from 1, or MIN-MAX"),
            ("worker:1:cpu", "\"cpu\" is not NAME=AMOUNT"),
        ] {
            let error = read_role(text).expect_err("refused").text(crate::output::Paint::PLAIN);
            assert!(error.contains(why), "{error}");
        }
    }
}
