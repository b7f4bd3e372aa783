//! Two handovers compared by meaning.
