CREATE TABLE nas (
    ds_id          text COLLATE "C" PRIMARY KEY,
    key_thumbprint bytea NOT NULL UNIQUE,
    public_key     bytea NOT NULL,
    serial_tag     bytea NOT NULL,
    model          text NOT NULL,
    enrolled_at    bigint NOT NULL,
    status         text NOT NULL
);

CREATE TABLE enrolment_token (hash bytea PRIMARY KEY);

-- Every change of a record is told to all replicas, whoever makes it and by whatever tool.
CREATE FUNCTION nas_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sns_relay_nas', encode(OLD.key_thumbprint, 'hex'));
    IF TG_OP = 'UPDATE' AND NEW.key_thumbprint <> OLD.key_thumbprint THEN
        PERFORM pg_notify('sns_relay_nas', encode(NEW.key_thumbprint, 'hex'));
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER nas_changed AFTER UPDATE OR DELETE ON nas
    FOR EACH ROW EXECUTE FUNCTION nas_changed();
