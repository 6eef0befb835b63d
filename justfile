# The short names of what is done often; `just` lists them.

_list:
    @just --list

# Format, lints, unit tests, tidy and sim
check:
    ./tests/run quick

# Everything that CI runs
test:
    ./tests/run

# The sweep of power cuts alone; arguments go to the test, for instance a story's name
sim *ARGS:
    cargo test --test sim -- {{ ARGS }}

# Which changes to the decisions no test would notice (needs cargo-mutants)
mutants:
    cargo mutants --file 'src/journey/**' --file src/daemon/carry.rs

# Accept changed snapshots after a look at them (needs cargo-insta)
bless:
    cargo insta review

# The binary as it is shipped
dist:
    cargo build --release --locked
