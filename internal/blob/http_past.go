package blob

import (
	"net/http"
	"net/url"
	"time"
)

// terms are which state of a blob the request is about, and under which conditions.
func (x exchange) terms() (m moment, when Conditions, err error) {
	if m, err = x.q.moment(); err != nil {
		return m, when, err
	}
	when, err = conditions(x.r.Header, "")
	return m, when, err
}

func (q query) moment() (m moment, err error) {
	m = moment{q["snapshot"], q["versionid"]}
	if m.snapshot != "" && m.version != "" {
		return m, badQuery("versionid", m.version, "left out where snapshot is named")
	}
	for _, name := range []string{"snapshot", "versionid"} {
		v, ok := q[name]
		if _, err := time.Parse(stampForm, v); ok && err != nil {
			return m, badQuery(name, v, "a time such as 2026-01-02T15:04:05.0000000Z")
		}
	}
	return m, nil
}

// sourceMoment is which state of a blob the URL is about.
func sourceMoment(u *url.URL) (moment, error) {
	q, err := parseQuery(u.RawQuery)
	if err != nil {
		return moment{}, err
	}
	return q.moment()
}

// snapshotBlob is Snapshot Blob.
func (s *Service) snapshotBlob(x exchange) error {
	d, err := x.draft(false)
	if err != nil {
		return err
	}
	if x.q.onlyCreates() {
		d.when.NoneMatch = "" // it changes nothing that is there
	}
	stamp, info, err := s.snapshot(x.r.Context(), x.g, d.meta, d.when)
	if err == nil {
		x.w.Header().Set("x-ms-snapshot", stamp)
	}
	return x.written(http.StatusCreated, info, err)
}

// deletePermanently is Delete Blob of what was deleted already.
func (s *Service) deletePermanently(x exchange) error {
	m, err := x.q.moment()
	if err != nil {
		return err
	}
	if m.current() {
		return badQuery("deletetype", "permanent", "beside the snapshot or versionid that is to be removed for good")
	}
	if err := s.deleteNow(x.r.Context(), x.g, m); err != nil {
		return err
	}
	x.w.Header().Set("x-ms-delete-type-permanent", "true")
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}

// undeleteBlob is Undelete Blob.
func (s *Service) undeleteBlob(x exchange) error {
	if a := s.byName(s.accountOf(x.r.Host)); a != nil && a.hns {
		deletion, err := x.undeleteSource(x.g.Item())
		if err != nil {
			return err
		}
		kind, err := s.undeletePath(x.r.Context(), x.g, deletion)
		if err != nil {
			return err
		}
		x.w.Header().Set("x-ms-resource-type", kind)
		x.w.WriteHeader(http.StatusOK)
		return nil
	}
	if x.r.Header.Get("x-ms-undelete-source") != "" {
		return unsupportedHeader("x-ms-undelete-source")
	}
	if err := s.undelete(x.r.Context(), x.g); err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// restoreContainer is Restore Container.
func (s *Service) restoreContainer(x exchange) error {
	id, err := x.g.On(ContainerWrite)
	if err != nil {
		return err
	}
	if n := x.r.Header.Get("x-ms-deleted-container-name"); n != id.Name() {
		return badHeader("x-ms-deleted-container-name", n, "the name of the container in the path")
	}
	version := x.r.Header.Get("x-ms-deleted-container-version")
	if _, err := time.Parse(stampForm, version); err != nil {
		return badHeader("x-ms-deleted-container-version", version, "the version that a list of deleted containers shows")
	}
	if err := s.undeleteContainer(x.r.Context(), x.g, version); err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusCreated)
	return nil
}

// daysLeft is how many days something is kept, a part of one as a whole one.
func daysLeft(until, now time.Time) int {
	return max(0, int((until.Sub(now)+24*time.Hour-1)/(24*time.Hour)))
}
