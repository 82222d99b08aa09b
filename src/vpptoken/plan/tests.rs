//! Tables and properties of plan.
