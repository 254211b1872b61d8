//! Links between members are cut: both ways around the leader or a follower, one way only, or between two members that both reach the
//! third, or all in two parts (N1, N2, N3).

use rand::Rng;
use rand::seq::IndexedRandom as _;

use super::{Nemesis, Strike, Struck, Who};
use crate::chaos::net::Policy;
use crate::chaos::stage::Stage;

/// How long, in milliseconds: several elections.
const LENGTH_MS: (u64, u64) = (1_500, 4_000);
const CUT: Policy = Policy::CUT;

#[derive(Clone, Copy)]
enum Shape {
    /// Nothing to it and nothing from it.
    Around(Who),
    /// It hears, and is not heard.
    Mute(Who),
    /// It is heard, and hears nothing.
    Deaf(Who),
    /// Leader and one follower do not reach each other; the third reaches both.
    Bridge,
    /// Some members, fewer than half, on one side and the others on the other; the leader may be on either.
    Split,
}

struct Partition(Shape, &'static str);

/// All shapes.
pub(super) fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(Partition(Shape::Around(Who::Leader), "cut-leader")),
        Box::new(Partition(Shape::Around(Who::Follower), "cut-follower")),
        Box::new(Partition(Shape::Mute(Who::Leader), "mute-leader")),
        Box::new(Partition(Shape::Deaf(Who::Leader), "deaf-leader")),
        Box::new(Partition(Shape::Mute(Who::Follower), "mute-follower")),
        Box::new(Partition(Shape::Bridge, "bridge")),
        Box::new(Partition(Shape::Split, "split")),
    ]
}

impl Nemesis for Partition {
    fn name(&self) -> &'static str {
        self.1
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let ids = stage.ids();
            let target = match self.0 {
                Shape::Around(who) => {
                    let id = who.pick(stage).await?;
                    stage.network.set_around(id, &ids, CUT);
                    format!("c{id}")
                }
                Shape::Mute(who) => {
                    let id = who.pick(stage).await?;
                    ids.iter()
                        .filter(|other| **other != id)
                        .for_each(|other| stage.network.set(id, *other, CUT));
                    format!("c{id}")
                }
                Shape::Deaf(who) => {
                    let id = who.pick(stage).await?;
                    ids.iter()
                        .filter(|other| **other != id)
                        .for_each(|other| stage.network.set(*other, id, CUT));
                    format!("c{id}")
                }
                Shape::Bridge => {
                    let follower = stage.follower().await?;
                    let leader = stage.leader().await?;
                    stage.network.set_around(follower, &[leader], CUT);
                    format!("c{leader} and c{follower}")
                }
                Shape::Split => {
                    let most = ids.len().div_ceil(2).max(2);
                    let count = stage.random.random_range(1..most);
                    let few: Vec<u64> = ids.choose_multiple(&mut stage.random, count).copied().collect();
                    let many: Vec<u64> = ids.iter().filter(|id| !few.contains(id)).copied().collect();
                    few.iter().for_each(|id| stage.network.set_around(*id, &many, CUT));
                    format!("{few:?} from {many:?}")
                }
            };
            let length = stage.between_ms(LENGTH_MS.0, LENGTH_MS.1);
            tokio::time::sleep(length).await;
            stage.network.heal();
            Ok(Struck { target: format!("{target} for {} ms", length.as_millis()) })
        })
    }
}
