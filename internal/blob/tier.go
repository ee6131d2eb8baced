package blob

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// tiers are those of block blobs. They are metadata, but for one thing: what is
// archived is not read until it is in another tier again.
var tiers = []string{"Hot", "Cool", "Cold", archive}

const archive = "Archive"

// tierOf reads a tier in a header; "" is none.
func tierOf(r *http.Request) (string, error) {
	v := r.Header.Get("x-ms-access-tier")
	for _, t := range tiers {
		if strings.EqualFold(t, v) {
			return t, nil
		}
	}
	if v != "" {
		return "", badHeader("x-ms-access-tier", v, strings.Join(tiers, ", "))
	}
	return "", nil
}

// online says that b is not archived.
func (b *row) online() error {
	if b.Tier == archive {
		return fail(http.StatusConflict, "BlobArchived", "This operation is not permitted on an archived blob.")
	}
	return nil
}

// setTier puts the blob that the Grant, for BlobWrite, is about in another tier,
// and says whether it was archived. Its etag stays.
func (s *Service) setTier(ctx context.Context, g gate.Grant, tier string, m moment, when Conditions) (thawed bool, err error) {
	p, err := s.blobTarget(g, BlobWrite)
	if err != nil {
		return false, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, b, err := s.alter(tx, g, p, m, when, BlobWrite)
		if err != nil {
			return err
		}
		if b.Type != blockBlob {
			return wrongType(b.Type)
		}
		thawed = b.Tier == archive && tier != archive
		b.Tier, b.Tiered = tier, s.Now().UTC()
		return put(tx, p, c, m, b)
	})
	return thawed, err
}

// setBlobTier is Set Blob Tier.
func (s *Service) setBlobTier(x exchange) error {
	m, when, err := x.terms()
	if err != nil {
		return err
	}
	tier, err := tierOf(x.r)
	if err != nil {
		return err
	}
	if tier == "" {
		return fail(http.StatusBadRequest, "MissingRequiredHeader", "The header x-ms-access-tier is missing; it must be %s.", strings.Join(tiers, ", "))
	}
	if v := x.r.Header.Get("x-ms-rehydrate-priority"); v != "" && !slices.ContainsFunc([]string{"Standard", "High"}, func(p string) bool { return strings.EqualFold(p, v) }) {
		return badHeader("x-ms-rehydrate-priority", v, "Standard or High")
	}
	thawed, err := s.setTier(x.r.Context(), x.g, tier, m, when)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if thawed {
		status = http.StatusAccepted
	}
	x.w.WriteHeader(status)
	return nil
}
