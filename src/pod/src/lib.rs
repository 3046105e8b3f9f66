//! The domain: pods, containers, their owner tasks, steps and recovery.
