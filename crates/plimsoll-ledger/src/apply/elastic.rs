//! `MoveNode`, and what policy may say of pools' nodes.

use plimsoll_types::NodeId;

use crate::elastic::{Moved, SINCE_VERSION, is_of_elastic};
use crate::ledger::Context;
use crate::{
    Blocker, Elasticity, Ledger, Node, Outcome, PolicyName, PolicyObject, Reason, Refusal, ScalingTarget,
};

impl Ledger {
    pub(crate) fn apply_move_node(
        &mut self,
        context: &mut Context<'_>,
        id: NodeId,
        from: &str,
        to: &str,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "elastic pools")?;
        self.may_move(id, from, to)?;
        let old =
            self.node(id).ok_or_else(|| Refusal::one(Reason::NotFound, format!("node #{}", id.0), 1, 0))?;
        let home = old.moved.as_ref().map_or(from, |moved| &moved.home).to_owned();
        let moved = Some(Box::new(Moved { home, from: from.to_owned(), at: context.now }));
        let node = Node { pool: to.to_owned(), moved, ..Node::clone(old) };
        Ok(self.store_node(context, "pool/move", node))
    }

    /// Elastic pools are known to the version in force, and nothing is to scale a pool that is static.
    pub(super) fn check_elastic(
        &self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        blockers: &mut Vec<Blocker>,
    ) {
        if put.iter().any(is_of_elastic) {
            self.knows(SINCE_VERSION, "elasticity of pools", blockers);
        }
        let is_static = |name: &str| {
            let new = put.iter().rev().find_map(|object| match object {
                PolicyObject::Pool(pool) if pool.name == name => Some(pool.elastic.elasticity),
                _ => None,
            });
            let now = || self.pool(name).map(|pool| pool.elastic.elasticity);
            new.or_else(now) == Some(Elasticity::Static)
        };
        for policy in self.scaling_policies_after(put, delete).into_values() {
            if let ScalingTarget::Pool(pool) = &policy.target
                && is_static(pool)
            {
                let subject = format!("scaling policy {} of pool {pool}, which is static", policy.name);
                blockers.push(Blocker::new(Reason::InvalidArgument, subject, 1, 0));
            }
        }
    }
}
