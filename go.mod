module castellan

go 1.26.0

require (
	github.com/ncruces/go-sqlite3 v0.37.0
	golang.org/x/crypto v0.58.0
)

require (
	github.com/elastic/go-seccomp-bpf v1.6.0 // indirect
	github.com/go-jose/go-jose/v4 v4.1.9 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/landlock-lsm/go-landlock v0.11.0 // indirect
	github.com/ncruces/go-sqlite3-wasm/v6 v6.5.35401 // indirect
	github.com/ncruces/julianday v1.0.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	lukechampine.com/adiantum v1.1.1 // indirect
)
