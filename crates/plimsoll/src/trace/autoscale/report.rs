//! What `simulate autoscale` writes.

use serde_json::{Value, json};

use super::compare::Comparison;
use super::series::Series;
use super::simulation::{Course, Setup};

/// A course with its series.
pub(crate) struct Report<'a> {
    pub(crate) series: &'a Series,
    pub(crate) capacity: f64,
    pub(crate) setup: Setup,
    pub(crate) course: &'a Course,
    pub(crate) comparison: Option<Comparison>,
}

impl Report<'_> {
    /// One document: `steps` and `summary`, and `compare` where it was asked for.
    pub(crate) fn document(&self) -> Value {
        let rows = self.series.times.iter().zip(&self.series.values).zip(&self.course.steps);
        let steps = rows.map(|((time, load), step)| {
            json!({ "time": time, "load": load, "desired": step.desired, "ready": step.ready })
        });
        let steps: Vec<Value> = steps.collect();
        let mut document = json!({ "steps": steps, "summary": self.summary() });
        if let Some(comparison) = &self.comparison {
            document["compare"] = comparison.document();
        }
        document
    }

    fn summary(&self) -> Value {
        let course = self.course;
        let forecasters = course.scores.iter().map(|score| {
            json!({
                "name": score.forecaster,
                "score": score.score_permille.map(|score| score as f64 / 1000.0),
                "used_steps": score.used_steps,
            })
        });
        json!({
            "capacity": self.capacity,
            "startup_steps": self.setup.startup_steps,
            "step_ms": self.setup.step_ms,
            "scored_steps": course.scored,
            "under_provisioned_steps": course.missed,
            "under_provisioned_share": course.missed_share(),
            "replica_steps": course.paid,
            "steps_without_forecast": course.without_forecast,
            "seasons_steps": course.periods,
            "forecasters": forecasters.collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let course = self.course;
        let mut text = format!(
            "{} steps, the last {} scored: {:.2}% under-provisioned, {} replica-steps\n",
            course.steps.len(),
            course.scored,
            course.missed_share() * 100.0,
            course.paid
        );
        if !course.scores.is_empty() {
            text.push_str(&format!("seasons in steps: {:?}\n", course.periods));
            text.push_str("forecaster      score  used steps\n");
        }
        for score in &course.scores {
            let value = score
                .score_permille
                .map_or_else(|| "-".to_owned(), |score| format!("{:.3}", score as f64 / 1000.0));
            text.push_str(&format!("{:<14}  {value:>5}  {:>10}\n", score.forecaster, score.used_steps));
        }
        if let Some(comparison) = &self.comparison {
            text.push_str(&comparison.text());
        }
        text
    }
}
