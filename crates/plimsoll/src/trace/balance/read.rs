//! Recorded requests: `t_s,ctx_tokens,gen_tokens` (Azure's LLM traces) or `t_ms,in_tokens,out_tokens,block_ids` (Mooncake's; the last may be missing).

use std::path::Path;

use super::Arrival;
use crate::error::CliError;
use crate::trace::rows::{Row, read};

const US_PER_S: f64 = 1e6;
const US_PER_MS: u64 = 1_000;
/// Latest time in milliseconds: 3,000 years, as for other recordings.
const MAX_MS: u64 = 100_000_000_000_000;
/// Larger prompts and answers are a mistake in the file.
const MAX_TOKENS: u64 = 100_000_000;

/// Reads requests, in the order of their times. The key of a request is that of the first `key_blocks` blocks of its prompt; without blocks it is
/// the number of its row, as nothing tells which requests belong together.
pub(crate) fn read_requests(path: &Path, key_blocks: usize) -> Result<Vec<Arrival>, CliError> {
    let azure: &[&str] = &["t_s", "ctx_tokens", "gen_tokens"];
    let mooncake: &[&str] = &["t_ms", "in_tokens", "out_tokens"];
    let mut arrivals: Vec<Arrival> = Vec::new();
    read(path, azure, mooncake, |row| {
        let mut arrival = if row.has("t_s") { of_azure(row)? } else { of_mooncake(row)? };
        arrival.key = match arrival.blocks.get(..key_blocks.min(arrival.blocks.len())) {
            // The id of a block stands for all before it: the last one of the beginning is the whole beginning.
            Some([.., last]) => *last,
            _ => row.line(),
        };
        arrivals.push(arrival);
        Ok(())
    })?;
    arrivals.sort_by_key(|arrival| arrival.t_us);
    if arrivals.is_empty() {
        return Err(CliError::usage(format!("{}: there is no request in it", path.display())));
    }
    Ok(arrivals)
}

fn of_azure(row: &Row<'_>) -> Result<Arrival, CliError> {
    let t_s = row.seconds("t_s")?.ok_or_else(|| row.wrong("t_s", "is empty"))?;
    Ok(Arrival {
        t_us: (t_s * US_PER_S).round() as u64,
        prompt_tokens: tokens(row, "ctx_tokens")?,
        output_tokens: tokens(row, "gen_tokens")?,
        ..Arrival::default()
    })
}

fn of_mooncake(row: &Row<'_>) -> Result<Arrival, CliError> {
    let t_ms: u64 = row.number("t_ms")?;
    if t_ms > MAX_MS {
        return Err(row.wrong("t_ms", &format!("{t_ms} is later than {MAX_MS}")));
    }
    let ids = if row.has("block_ids") { row.text("block_ids")? } else { "" };
    let block = |id: &str| {
        id.parse().map_err(|_| row.wrong("block_ids", &format!("{id:?} is not the number of a block")))
    };
    Ok(Arrival {
        t_us: t_ms * US_PER_MS,
        prompt_tokens: tokens(row, "in_tokens")?,
        output_tokens: tokens(row, "out_tokens")?,
        blocks: ids.split_whitespace().map(block).collect::<Result<_, _>>()?,
        ..Arrival::default()
    })
}

fn tokens(row: &Row<'_>, column: &str) -> Result<u64, CliError> {
    let count: u64 = row.number(column)?;
    if count > MAX_TOKENS {
        return Err(row.wrong(column, &format!("{count} tokens are more than {MAX_TOKENS}")));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(text: &str, key_blocks: usize) -> Result<Vec<Arrival>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        read_requests(file.path(), key_blocks)
            .map_err(|error| error.status()["message"].to_string().replace(&name, "F"))
    }

    #[test]
    fn both_recordings_are_read_in_the_order_of_time() {
        let azure = requests("t_s,ctx_tokens,gen_tokens\n4.3155,396,109\n0.000,374,44\n", 2).unwrap();
        let times: Vec<_> = azure.iter().map(|request| (request.t_us, request.prompt_tokens)).collect();
        assert_eq!(times, [(0, 374), (4_315_500, 396)]);
        assert_ne!(azure[0].key, azure[1].key);
        let mooncake =
            requests("t_ms,in_tokens,out_tokens,block_ids\n7,1024,5,0 14 15\n9,600,5,0 14\n9,1,1,\n", 2)
                .unwrap();
        assert_eq!(mooncake[0].blocks, [0, 14, 15]);
        assert_eq!((mooncake[0].key, mooncake[1].key, mooncake[2].blocks.len()), (14, 14, 0));
        assert_eq!(requests("t_ms,in_tokens,out_tokens\n7,1024,5\n", 2).unwrap()[0].blocks, [0_u64; 0]);
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line_and_column() {
        for (text, says) in [
            ("t_s,ctx_tokens\n", "F:1: expected the columns t_s,ctx_tokens,gen_tokens, or t_ms"),
            ("t_s,ctx_tokens,gen_tokens\n", "there is no request"),
            ("t_s,ctx_tokens,gen_tokens\n0,-1,5\n", "F:2: column ctx_tokens"),
            ("t_s,ctx_tokens,gen_tokens\n0,1,999999999\n", "F:2: column gen_tokens"),
            ("t_s,ctx_tokens,gen_tokens\n,1,9\n", "F:2: column t_s: is empty"),
            ("t_ms,in_tokens,out_tokens,block_ids\n1,1,1,3 x\n", "F:2: column block_ids"),
            ("t_ms,in_tokens,out_tokens\n999999999999999,1,1\n", "F:2: column t_ms"),
        ] {
            let said = requests(text, 2).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }
}
