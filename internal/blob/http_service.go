package blob

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// serviceProperties are the settings of the account's blobs that the Grant, for
// ServiceRead, is about.
func (s *Service) serviceProperties(ctx context.Context, g gate.Grant) (props ServiceProperties, err error) {
	p, err := s.target(g, ServiceRead, FileServiceRead)
	if err != nil {
		return props, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		_, err := loadService(tx, p, &props)
		return err
	})
	return props, err
}

func loadService(tx *store.Tx, p place, props *ServiceProperties) (*resource.Doc, error) {
	d, err := resource.Load(tx, p.service())
	if err != nil || d == nil {
		return nil, orElse(err, noAccount(p.ID.Name()))
	}
	return d, json.Unmarshal(d.Properties, props)
}

// setService changes the settings of the account's blobs that the Grant, for
// ServiceWrite, is about: the same that Resource Manager shows.
func (s *Service) setService(ctx context.Context, g gate.Grant, change func(*ServiceProperties)) error {
	p, err := s.target(g, ServiceWrite, FileServiceWrite)
	if err != nil {
		return err
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		var props ServiceProperties
		d, err := loadService(tx, p, &props)
		if err != nil {
			return err
		}
		change(&props)
		old := *d
		if d.Properties, err = json.Marshal(props); err != nil {
			return err
		}
		if err := s.checkService(d); arm.CodeOf(err) == arm.BadRequest {
			_, why := gate.PublicError(err)
			return fail(http.StatusBadRequest, "InvalidXmlNodeValue", "%s", why)
		} else if err != nil {
			return err
		}
		s.touch(d)
		if err := s.saveService(tx, resource.Change{Doc: d, Old: &old}); err != nil {
			return err
		}
		return resource.Save(tx, d)
	})
}

type retentionXML struct {
	Enabled   bool
	Days      *int
	Permanent *bool `xml:"AllowPermanentDelete"`
}

type corsXML struct {
	AllowedOrigins  string
	AllowedMethods  string
	MaxAgeInSeconds int
	ExposedHeaders  string
	AllowedHeaders  string
}

type corsListXML struct {
	Rules []corsXML `xml:"CorsRule"`
}

func showCORS(rules *Rules) (out corsListXML) {
	for _, r := range rules.list() {
		out.Rules = append(out.Rules, corsXML{strings.Join(r.Origins, ","), strings.Join(r.Methods, ","), r.MaxAge, strings.Join(r.Exposed, ","), strings.Join(r.Headers, ",")})
	}
	return out
}

type metricsXML struct {
	Version         string
	Enabled         bool
	RetentionPolicy retentionXML
}

// getServiceProperties is Get Blob Service Properties. Logging, metrics and the
// website are off.
func (s *Service) getServiceProperties(x exchange) error {
	props, err := s.serviceProperties(x.r.Context(), x.g)
	if err != nil {
		return err
	}
	type logging struct {
		Version             string
		Delete, Read, Write bool
		RetentionPolicy     retentionXML
	}
	out := struct {
		XMLName               xml.Name `xml:"StorageServiceProperties"`
		Logging               logging
		HourMetrics           metricsXML
		MinuteMetrics         metricsXML
		Cors                  corsListXML
		DefaultServiceVersion string `xml:",omitempty"`
		DeleteRetentionPolicy retentionXML
		StaticWebsite         retentionXML
	}{Logging: logging{Version: "1.0"}, HourMetrics: metricsXML{Version: "1.0"}, MinuteMetrics: metricsXML{Version: "1.0"}, Cors: showCORS(props.CORS), DefaultServiceVersion: props.Version}
	if r := props.Retention; r != nil {
		out.DeleteRetentionPolicy = retentionXML{Enabled: r.Enabled, Days: r.Days}
		if r.Enabled {
			out.DeleteRetentionPolicy.Permanent = &r.Permanent
		}
	}
	writeXML(x.w, http.StatusOK, out)
	return nil
}

// setServiceProperties is Set Blob Service Properties. What the document does not
// name stays as it is.
func (s *Service) setServiceProperties(x exchange) error {
	n, err := readXML(x.w, x.r, "StorageServiceProperties")
	if err != nil {
		return err
	}
	change, err := serviceChange(n)
	if err != nil {
		return err
	}
	if err := s.setService(x.r.Context(), x.g, change); err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}

// serviceChange is what a document changes of the settings.
func serviceChange(n *node) (func(*ServiceProperties), error) {
	if err := n.only("Logging", "HourMetrics", "MinuteMetrics", "Metrics", "Cors", "DefaultServiceVersion", "DeleteRetentionPolicy", "StaticWebsite"); err != nil {
		return nil, err
	}
	version, err := n.one("DefaultServiceVersion")
	if err != nil {
		return nil, err
	}
	var cors *Rules
	var keep *Retention
	seen := map[string]bool{}
	for _, k := range n.kids {
		if seen[k.name] {
			return nil, badXML(k.name + " is there twice")
		}
		seen[k.name] = true
		switch k.name {
		case "Cors":
			cors, err = corsList(k)
		case "DeleteRetentionPolicy":
			keep, err = retentionOf(k)
		case "Logging", "HourMetrics", "MinuteMetrics", "Metrics", "StaticWebsite":
			err = k.off()
		}
		if err != nil {
			return nil, err
		}
	}
	return func(p *ServiceProperties) {
		if p.Version = text(version, p.Version); cors != nil {
			p.CORS = cors
		}
		if keep != nil {
			p.Retention = keep
		}
	}, nil
}

// off refuses to switch on what there is none of: logs, metrics and websites.
func (n *node) off() error {
	for _, k := range n.kids {
		on, err := k.boolean()
		if err == nil && on && k.name != "IncludeAPIs" {
			return fail(http.StatusBadRequest, "FeatureNotSupported", "%s.%s is true; there is no %s of this service here, so it must be false.", n.name, k.name, n.name)
		}
	}
	return nil
}

// boolean is the element's text as true or false.
func (n *node) boolean() (bool, error) {
	switch strings.TrimSpace(string(n.text)) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fail(http.StatusBadRequest, "InvalidXmlNodeValue", "%s is %q; it must be true or false.", n.name, n.text)
}

func (n *node) number() (int, error) {
	i, err := strconv.Atoi(strings.TrimSpace(string(n.text)))
	if err != nil {
		return 0, fail(http.StatusBadRequest, "InvalidXmlNodeValue", "%s is %q; it must be a whole number.", n.name, n.text)
	}
	return i, nil
}

// corsList reads CORS rules in XML.
func corsList(n *node) (*Rules, error) {
	if err := n.only("CorsRule"); err != nil {
		return nil, err
	}
	out := &Rules{[]Rule{}}
	for _, k := range n.kids {
		if err := k.only("AllowedOrigins", "AllowedMethods", "AllowedHeaders", "ExposedHeaders", "MaxAgeInSeconds"); err != nil {
			return nil, err
		}
		var r Rule
		for _, f := range k.kids {
			if f.name == "MaxAgeInSeconds" {
				var err error
				if r.MaxAge, err = f.number(); err != nil {
					return nil, err
				}
			}
		}
		for name, to := range map[string]*[]string{"AllowedOrigins": &r.Origins, "AllowedMethods": &r.Methods, "AllowedHeaders": &r.Headers, "ExposedHeaders": &r.Exposed} {
			v, err := k.one(name)
			if err != nil {
				return nil, err
			}
			*to = []string{}
			for x := range strings.SplitSeq(v, ",") {
				if x = strings.TrimSpace(x); x != "" {
					*to = append(*to, x)
				}
			}
		}
		out.List = append(out.List, r)
	}
	return out, nil
}

// retentionOf reads how long deleted blobs are kept.
func retentionOf(n *node) (*Retention, error) {
	if err := n.only("Enabled", "Days", "AllowPermanentDelete"); err != nil {
		return nil, err
	}
	out := &Retention{}
	for _, k := range n.kids {
		var err error
		switch k.name {
		case "Enabled":
			out.Enabled, err = k.boolean()
		case "Days":
			var days int
			days, err = k.number()
			out.Days = &days
		case "AllowPermanentDelete":
			out.Permanent, err = k.boolean()
		}
		if err != nil {
			return nil, err
		}
	}
	if !out.Enabled {
		out = &Retention{}
	}
	return out, nil
}

// getServiceStats is Get Blob Service Stats, which only the secondary endpoint of
// an account with two places has; there is none here.
func (s *Service) getServiceStats(x exchange) error {
	if _, err := x.g.On(ServiceRead); err != nil {
		return err
	}
	return badQuery("comp", "stats", "sent to the secondary endpoint of a geo-redundant account, which this one is not")
}

// getAccountInfo is Get Account Information.
func (s *Service) getAccountInfo(x exchange) error {
	if _, err := x.g.On(ServiceRead); err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("x-ms-sku-name", "Standard_LRS")
	h.Set("x-ms-account-kind", "StorageV2")
	a := s.at(x.r.Host)
	h.Set("x-ms-is-hns-enabled", strconv.FormatBool(a != nil && a.hns))
	x.w.WriteHeader(http.StatusOK)
	return nil
}
