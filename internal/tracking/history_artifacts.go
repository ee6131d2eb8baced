package tracking

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Azure's own clients reach artifacts by URLs: they ask for one blob's, or for
// those of all below a folder, and fetch the bytes there.

func (s *Service) runArtifactRoutes() []gate.Route {
	var out []gate.Route
	for _, at := range []string{"experiments/{experiment}/runs/{run}/artifacts", "experimentids/{experimentid}/runs/{run}/artifacts"} {
		out = append(out,
			s.door(ArtifactsRead, "GET", historyPath+at, runAt, s.allArtifacts),
			s.door(ArtifactsRead, "GET", historyPath+at+"/path", runAt, s.allArtifacts),
			s.door(ArtifactsRead, "GET", historyPath+at+"/metadata", runAt, s.artifactMetadata),
			s.door(ArtifactsRead, "GET", historyPath+at+"/contentinfo", runAt, s.contentInfo),
			s.door(ArtifactsRead, "GET", historyPath+at+"/artifacturi", runAt, s.artifactAddress),
			s.door(ArtifactsRead, "GET", historyPath+at+"/prefix/contentinfo", runAt, s.contentInfos),
			s.door(ArtifactsWrite, "POST", historyPath+at+"/batch/metadata", runAt, s.newArtifacts),
		)
	}
	const place = "ExperimentRun/{container}"
	return append(out,
		s.door(ArtifactsRead, "GET", artifactPath+place, containerRun, s.allArtifacts),
		s.door(ArtifactsRead, "GET", artifactPath+"metadata/"+place+"/{path...}", containerRun, s.artifactMetadata),
		s.door(ArtifactsRead, "GET", artifactPath+"contentinfo/"+place+"/{path...}", containerRun, s.contentInfo),
		s.door(ArtifactsRead, "GET", artifactPath+"prefix/contentinfo/"+place+"/{path...}", containerRun, s.contentInfos),
		s.door(ArtifactsWrite, "POST", artifactPath+"batch/metadata/"+place, containerRun, s.newArtifacts),
	)
}

// containerRun is the run of a container of artifacts, dcid.RUN.
func containerRun(_ *Service, _ *http.Request, v gate.Vars, _ arm.ID) (string, error) {
	run, ok := strings.CutPrefix(v["container"], "dcid.")
	if !ok {
		return "", bad("The container '%s' is not that of a run, as in dcid.RUN.", clip(v["container"]))
	}
	return run, checkRunID(run)
}

// artifactPlace is the run of the Grant with the path that the request names:
// in the query, or behind the container's name.
func (in *input) artifactPlace(g gate.Grant, folder bool) place {
	in.ignore("api-version")
	p := place{run: g.Item(), path: in.text("path")}
	for i, seg := range in.behind {
		if strings.EqualFold(in.segment(0), "artifacts") && strings.EqualFold(seg, "ExperimentRun") {
			p.path = strings.Join(in.behind[min(i+2, len(in.behind)):], "/")
			break
		}
	}
	err := checkRunID(p.run)
	if err == nil && folder {
		p.path, err = folderPath(p.path)
	} else if err == nil {
		err = checkPath(p.path)
	}
	if err != nil && in.err == nil {
		in.err = err
	}
	return p
}

// artifactDTO is one artifact as the artifact service shows it.
func artifactDTO(p place) map[string]any {
	return map[string]any{"artifactId": "ExperimentRun/dcid." + p.run + "/" + p.path, "origin": "ExperimentRun", "container": "dcid." + p.run, "path": p.path, "tags": map[string]string{}}
}

func (s *Service) allArtifacts(ctx context.Context, g gate.Grant, in *input) (any, error) {
	return s.eachArtifact(ctx, g, in, listPage, func(_ Workspace, at place, b Blob) (map[string]any, error) {
		d := artifactDTO(at)
		d["createdTime"] = utc(millis(b.Modified))
		return d, nil
	})
}

// eachArtifact answers with a page of what is below a path, each as show has it.
func (s *Service) eachArtifact(ctx context.Context, g gate.Grant, in *input, most int, show func(Workspace, place, Blob) (map[string]any, error)) (any, error) {
	p, mark := in.artifactPlace(g, true), in.text("continuationToken")
	if err := in.done(); err != nil {
		return nil, err
	}
	w, err := s.held(ctx, g, ArtifactsRead, &p)
	if err != nil {
		return nil, err
	}
	blobs, next, err := s.Blobs.List(ctx, w, p.prefix(), true, mark, most)
	if err != nil {
		return nil, err
	}
	value := make([]map[string]any, 0, len(blobs))
	for _, b := range blobs {
		d, err := show(w, place{run: p.run, path: strings.TrimPrefix(b.Name, p.folder())}, b)
		if err != nil {
			return nil, err
		}
		value = append(value, d)
	}
	out := map[string]any{"value": value, "continuationToken": nil, "nextLink": nil}
	if next != "" {
		out["continuationToken"] = next
		out["nextLink"] = s.Site.Base() + in.path + "?" + url.Values{"path": {p.path}, "continuationToken": {next}}.Encode()
	}
	return out, nil
}

// one is a single artifact that is there.
func (s *Service) one(ctx context.Context, g gate.Grant, in *input) (Workspace, place, error) {
	p := in.artifactPlace(g, false)
	if err := in.done(); err != nil {
		return Workspace{}, p, err
	}
	w, err := s.held(ctx, g, ArtifactsRead, &p)
	if err != nil {
		return w, p, err
	}
	c, err := s.Blobs.Open(ctx, w, p.blob(), 0)
	if err != nil {
		return w, p, missing(err, p)
	}
	return w, p, c.Close()
}

func (s *Service) artifactMetadata(ctx context.Context, g gate.Grant, in *input) (any, error) {
	_, p, err := s.one(ctx, g, in)
	return artifactDTO(p), err
}

func (s *Service) contentInfo(ctx context.Context, g gate.Grant, in *input) (any, error) {
	w, p, err := s.one(ctx, g, in)
	if err != nil {
		return nil, err
	}
	return s.info(ctx, w, p, "r")
}

// info is where one artifact's bytes are.
func (s *Service) info(ctx context.Context, w Workspace, p place, permissions string) (map[string]any, error) {
	at, err := s.sign(ctx, w, p.blob(), permissions)
	if err != nil {
		return nil, err
	}
	return map[string]any{"contentUri": at, "origin": "ExperimentRun", "container": "dcid." + p.run, "path": p.path, "tags": map[string]string{}}, nil
}

func (s *Service) artifactAddress(ctx context.Context, g gate.Grant, in *input) (any, error) {
	w, p, err := s.one(ctx, g, in)
	if err != nil {
		return nil, err
	}
	return s.sign(ctx, w, p.blob(), "r")
}

func (s *Service) contentInfos(ctx context.Context, g gate.Grant, in *input) (any, error) {
	return s.eachArtifact(ctx, g, in, maxLogs, func(w Workspace, at place, _ Blob) (map[string]any, error) {
		return s.info(ctx, w, at, "r")
	})
}

// newArtifacts gives URLs by which artifacts can be written that a client is
// about to upload.
func (s *Service) newArtifacts(ctx context.Context, g gate.Grant, in *input) (any, error) {
	var paths []string
	in.each("paths", 500, func(in *input) {
		paths = append(paths, in.must("path"))
		in.ignore("tags")
	})
	p := in.artifactPlace(g, true)
	if err := in.done(); err != nil {
		return nil, err
	}
	w, err := s.held(ctx, g, ArtifactsWrite, &p)
	if err != nil {
		return nil, err
	}
	artifacts, infos := map[string]any{}, map[string]any{}
	for _, path := range paths {
		if err := checkPath(path); err != nil {
			return nil, err
		}
		at := place{run: p.run, path: path}
		info, err := s.info(ctx, w, at, "rcw")
		if err != nil {
			return nil, err
		}
		artifacts[path], infos[path] = artifactDTO(at), info
	}
	return map[string]any{"artifacts": artifacts, "artifactContentInformation": infos, "errors": map[string]any{}}, nil
}
