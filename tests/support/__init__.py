"""What tests of several files share: tiny models and adapters, servers, oracles, faults, random policies."""
