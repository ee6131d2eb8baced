# The versions of tools that are not part of the program.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.4.0

.PHONY: check clients bench
check:
	@test -z "$$(gofmt -l cmd internal examples)" || { gofmt -l cmd internal examples; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	@# the vulnerability database is on the network, which many a machine is not
	@if out=$$(go run $(GOVULNCHECK) ./... 2>&1); then echo "govulncheck: nothing found"; \
	 elif echo "$$out" | grep -qE 'fetching vulnerabilities|dial tcp|no such host|Forbidden|i/o timeout|module proxy|loading packages'; then echo "govulncheck: skipped, its database can't be reached"; \
	 else echo "$$out"; exit 1; fi
	@# internal/app takes 8 to 10 minutes here under the race detector, which is go test's own limit
	go test -race -timeout 20m ./...

clients:
	bash test/clients/run.sh

bench:
	go test -run '^$$' -bench . -benchmem ./...
	cd test/bench && go test -run '^$$' -bench . -benchtime 150x ./...
