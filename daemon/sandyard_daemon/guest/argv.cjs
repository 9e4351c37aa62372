// Preloaded by `node -`: without the `-`, arguments stand where `node -e` and every released SDK have them.
process.argv.splice(1, 1)
