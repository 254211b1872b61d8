//! `plimsoll defragment`: how fragmented the free GPU of a pool is, which grants would have to go where against it, and what that costs. With
//! `--apply` they are given notice.

use clap::Args;
use plimsoll_client::v1::{
    DefragmentRequest, DefragmentResponse, DefragmentationCost, DefragmentationMove, DefragmentationStay,
    DeviceFragmentation, PlanDefragmentationRequest, PlanDefragmentationResponse,
};
use serde::Serialize;

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Out, devices, places, quantities, short_duration, stranded};

/// Says how fragmented the GPUs of a pool are, who would have to go where against it, and what that costs. Nothing is changed without --apply.
#[derive(Args, Debug)]
pub(crate) struct Defragment {
    /// The pool
    #[arg(value_name = "POOL", default_value = "default")]
    pool: String,
    /// Most moves, at most 256
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=256))]
    moves: u32,
    /// Give notice to those who would have to go elsewhere; they wait again after their grace
    #[arg(long)]
    apply: bool,
    /// With --apply: ask the ledger about each move, and change nothing
    #[arg(long, requires = "apply")]
    dry_run: bool,
}

impl Defragment {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        let out = globals.out();
        let asked = |error| CliError::from(error).asked(format!("cannot defragment pool {}", self.pool));
        if !self.apply {
            let request = PlanDefragmentationRequest { pool: self.pool.clone(), max_moves: self.moves };
            let plan = client.plan_defragmentation(request).await.map_err(asked)?;
            show(&out, &plan, || text(&self.pool, &plan, &out, "nothing was changed"))?;
            return Ok(Exit::Done);
        }
        let request = DefragmentRequest {
            pool: self.pool.clone(),
            max_moves: self.moves,
            validate_only: self.dry_run,
            ..DefragmentRequest::default()
        };
        let answer = client.defragment(request).await.map_err(asked)?;
        show(&out, &answer, || {
            let plan = answer.plan.clone().unwrap_or_default();
            let what = if self.dry_run { "nothing was changed" } else { "carried out as far as said below" };
            text(&self.pool, &plan, &out, what) + &outcomes(&answer, &out, self.dry_run)
        })?;
        Ok(Exit::Done)
    }
}

fn show(out: &Out, answer: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), CliError> {
    if out.is_human() {
        return out.emit(&text());
    }
    let plan = serde_json::to_value(answer);
    out.document(&plan.map_err(|error| CliError::local("the plan cannot be written", error))?)
}

fn text(pool: &str, plan: &PlanDefragmentationResponse, out: &Out, what: &str) -> String {
    let mut text = format!("Pool {pool} at revision {}; {what}\n\nFragmentation\n", plan.revision);
    if plan.before.is_empty() {
        text.push_str("  no GPUs\n");
    }
    for (before, after) in plan.before.iter().zip(&plan.after) {
        text.push_str(&format!("  {}\n", class(before, after, !plan.moves.is_empty())));
    }
    let mut part = |head: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{head}\n"));
            lines.iter().for_each(|line| text.push_str(&format!("  {} {line}\n", out.paint.bullet())));
        }
    };
    part("What would move, in this order", plan.moves.iter().map(moved).collect());
    let opens = plan.opens.iter().map(|one| {
        let gpu = one.gpu.clone().unwrap_or_default();
        let amounts = quantities(&one.amounts.clone().unwrap_or_default());
        let asked = [vec![gpus(&gpu)], amounts].concat().join(", ");
        format!("{asked}: fits on {} nodes, on {} now", one.nodes_after, one.nodes_before)
    });
    part("What would be free that is not", opens.collect());
    part("What stays", plan.stays.iter().map(stays).collect());
    let left = plan.preemptions_left.map(|left| format!("; {left} may be preempted in this hour"));
    let (movable, unmovable) = (plan.movable, plan.unmovable);
    text.push_str(&format!(
        "\nGrants of GPUs: {movable} could move, {unmovable} could not{}\n",
        left.unwrap_or_default()
    ));
    text
}

fn class(before: &DeviceFragmentation, after: &DeviceFragmentation, moves: bool) -> String {
    let then = if moves { format!(", {} after the moves", stranded(after)) } else { String::new() };
    format!("{} x {}: {}{then}", before.devices, before.model, stranded(before))
}

fn gpus(gpu: &plimsoll_client::v1::GpuAsk) -> String {
    let models =
        if gpu.models.is_empty() { String::new() } else { format!(" ({})", gpu.models.join(" or ")) };
    match (gpu.memory_bytes, gpu.milli) {
        (0, 0 | 1_000) => format!("{} GPU{models}", gpu.count.max(1)),
        (0, milli) => format!("{} GPU{models}", devices(milli.into())),
        (bytes, _) => format!("{} of a GPU{models}", plimsoll_types::quantity::display_bytes(bytes)),
    }
}

fn moved(one: &DefragmentationMove) -> String {
    let reservation = one.reservation.clone().unwrap_or_default();
    let to = one.to.iter().cloned().collect::<Vec<_>>();
    let cost = one.cost.unwrap_or_default();
    format!(
        "{} from {} to {}: {}",
        reservation.id,
        places(&reservation.allocations),
        places(&to),
        worth(&cost)
    )
}

fn stays(one: &DefragmentationStay) -> String {
    match &one.cost {
        Some(cost) => format!("{}: {} (to {}: {})", one.reservation, one.why, one.node, worth(cost)),
        None => format!("{}: {}", one.reservation, one.why),
    }
}

/// `1 GPU more to use, 0.5 GPU x 1h of work lost, score 0.5 of at least 0.5`.
fn worth(cost: &DefragmentationCost) -> String {
    let saving =
        if cost.saving_milli == 0 { "less than 0.001".to_owned() } else { devices(cost.saving_milli) };
    format!(
        "{saving} GPU more to use, {} GPU x {} of work lost, score {} of at least 0.5",
        devices(cost.held_milli),
        short_duration(cost.lost_ms),
        devices(cost.score_permille),
    )
}

fn outcomes(answer: &DefragmentResponse, out: &Out, dry: bool) -> String {
    let line = |one: &plimsoll_client::v1::DefragmentationOutcome| {
        let came = match (one.refusal.as_str(), dry) {
            ("", true) => "would be given notice".to_owned(),
            ("", false) => format!("was given notice at revision {}", one.revision),
            (refusal, _) => format!("stays: {refusal}"),
        };
        format!("  {} {} {came}\n", out.paint.bullet(), one.reservation)
    };
    let lines: String = answer.outcomes.iter().map(line).collect();
    if lines.is_empty() {
        "\nNothing is worth moving\n".to_owned()
    } else {
        format!("\nWhat came of it\n{lines}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_says_what_it_saves_what_it_loses_and_its_score() {
        let cost = DefragmentationCost {
            saving_milli: 1_000,
            held_milli: 500,
            lost_ms: 3_600_000,
            score_permille: 1_250,
        };
        let text = "1 GPU more to use, 0.5 GPU x 1h of work lost, score 1.25 of at least 0.5";
        assert_eq!(worth(&cost), text);
        assert!(worth(&DefragmentationCost::default()).starts_with("less than 0.001 GPU more"));
    }

    #[test]
    fn a_share_is_said_as_what_it_is_of() {
        let gpu = |count, milli, memory_bytes| plimsoll_client::v1::GpuAsk {
            count,
            milli,
            memory_bytes,
            ..Default::default()
        };
        assert_eq!(gpus(&gpu(2, 1_000, 0)), "2 GPU");
        assert_eq!(gpus(&gpu(1, 250, 0)), "0.25 GPU");
        assert_eq!(gpus(&gpu(1, 0, 20 << 30)), "20Gi of a GPU");
    }
}
